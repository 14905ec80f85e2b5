"""The objective checks what can be known when it is stated."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from beliefnav import Objective

BAD = [
    ("rate", 0.0),
    ("rate", -1),
    ("rate", math.inf),
    ("rate", math.nan),
    ("gain", 0),
    ("gain", -0.5),
    ("gain", math.inf),
    ("discount", -1e-9),
    ("discount", math.inf),
    ("discount", math.nan),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_numbers_out_of_range_are_named(name: str, value: Any):
    with pytest.raises(ValueError, match=f"Objective: {name} must be"):
        Objective(**{name: value})
    with pytest.raises(ValueError, match=f"Objective: {name} must be"):
        Objective()._replace(**{name: value})


@pytest.mark.parametrize("name", ["rate", "gain", "discount"])
def test_position_is_checked_like_keyword(name: str):
    values = {"rate": 1.0, "gain": 1.0, "discount": 1.0, name: -1.0}
    with pytest.raises(ValueError, match=f"Objective: {name} must be"):
        Objective(*values.values())


def test_discount_zero_is_admissible_and_kept():
    assert Objective(discount=0).discount == 0
    assert Objective()._replace(discount=0.0).discount == 0


def test_arrays_and_tracers_pass_unchecked():
    assert Objective(rate=jnp.asarray(-1.0)).rate == -1

    @jax.jit
    def rate(x: jax.Array) -> jax.Array:
        return jnp.asarray(Objective(rate=x).rate)

    assert rate(jnp.asarray(-2.0)) == -2


def test_constants_and_metric_are_leaves_of_a_pytree():
    objective = Objective(2.0, 3.0, 4.0, metric={"a": jnp.ones(2)})
    assert len(jax.tree.leaves(objective)) == 4
    doubled = jax.tree.map(lambda x: 2 * x, objective)
    assert isinstance(doubled, Objective)
    assert (doubled.rate, doubled.gain, doubled.discount) == (4.0, 6.0, 8.0)
