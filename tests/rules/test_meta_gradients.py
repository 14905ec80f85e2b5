"""A person differentiates through the steps of an optimizer, also where a gradient is 0."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from beliefnav.rules.catalogue import CATALOGUE

GRADIENT = jnp.array([0.0, 1.0, -2.0])
READINGS: dict[str, Any] = {
    "diagonal": {"curvature": jnp.array([0.0, 1.0, 2.0])},
    "matrix": {"curvature": jnp.diag(jnp.array([1.0, 2.0, 3.0]))},
}


@pytest.mark.parametrize("name", CATALOGUE)
def test_slopes_of_steps_are_finite(name: str) -> None:
    """By every number of the rule, by the start and by the size of the gradients.

    A root of a second moment of 0 has no slope, in optax neither: its rules have ``eps_root`` for
    that, and so have those beside them.
    """
    entry = CATALOGUE[name]
    numbers = {
        argument: float(value)
        for argument, parameter in inspect.signature(entry.rule).parameters.items()
        for value in [entry.arguments.get(argument, parameter.default)]
        if isinstance(value, float)
    }
    if "eps_root" in numbers:
        numbers["eps_root"] = 1e-6

    def last(numbers: Any, params: Any, scale: Any) -> Any:
        optimizer = entry.rule(**{**entry.arguments, **numbers})
        state = optimizer.init(params)
        for _ in range(3):
            step, state = optimizer.update(
                scale * GRADIENT, state, params, **READINGS.get(entry.reading or "", {})
            )
            params = optax.apply_updates(params, step)
        return jnp.sum(params**2)

    slopes = jax.jit(jax.grad(last, (0, 1, 2)))(numbers, jnp.array([0.5, 0.0, 1.0]), 1.0)
    for path, slope in jax.tree.leaves_with_path(slopes):
        assert np.isfinite(slope).all(), jax.tree_util.keystr(path)
