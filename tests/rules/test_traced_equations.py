"""A step traces hardly more than one of optax: what nobody reads is not computed."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from beliefnav import rules
from beliefnav.beliefs.contract import Filter
from beliefnav.rules.catalogue import CATALOGUE

# The code of optax, which rules are compared with and wrapped in, promotes dtypes.
pytestmark = pytest.mark.usefixtures("dtype_promotion")
ARRAYS = [jnp.ones((3, 2)) for _ in range(200)]


def equations(jaxpr: Any) -> int:
    """All equations of a program, also inside others."""
    inner = [
        x.jaxpr if hasattr(x, "jaxpr") else x
        for equation in jaxpr.eqns
        for value in equation.params.values()
        for x in (value if isinstance(value, tuple | list) else (value,))
        if hasattr(x, "jaxpr") or hasattr(x, "eqns")
    ]
    return len(jaxpr.eqns) + sum(map(equations, inner))


def traced(optimizer: Any) -> int:
    state = optimizer.init(ARRAYS)
    return equations(jax.make_jaxpr(optimizer.update)(ARRAYS, state, ARRAYS).jaxpr)


# Measured with jax 0.10: 1.40, 1.47, 1.22, 1.35, 4.2, 5.99.
AT_MOST = {
    "adam": (optax.adam, 1.5),
    "rmsprop": (optax.adam, 1.5),
    "lion": (optax.adam, 1.5),
    "adamw": (optax.adamw, 1.5),
    "hazard_filter": (optax.adam, 5.0),
    "secant": (optax.adam, 6.0),
}


@pytest.mark.parametrize("name", AT_MOST)
def test_a_step_over_many_arrays_traces_few_equations(name: str) -> None:
    peer, ratio = AT_MOST[name]
    ours = traced(CATALOGUE[name].rule(**CATALOGUE[name].arguments))
    assert ours <= ratio * traced(peer(1e-3))


@pytest.mark.parametrize("name", CATALOGUE)
def test_no_step_asks_for_diagnostics(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the rule nor a belief inside another: all filters are made with one that raises."""

    def diagnose(*_: Any) -> Any:
        raise AssertionError("a step asked what the observation did")

    made: Any = Filter.__new__

    def without(cls: Any, *args: Any, **kwargs: Any) -> Any:
        return made(cls, *args, **kwargs)._replace(diagnose=diagnose)

    entry = CATALOGUE[name]
    with monkeypatch.context() as patched:
        patched.setattr(Filter, "__new__", without)
        patched.setattr(Filter, "_make", classmethod(lambda cls, fields: made(cls, *fields)))
        optimizer = entry.rule(**entry.arguments)
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    reading: dict[str, Any] = {}
    if entry.reading == "diagonal":
        reading = {"curvature": params}
    if entry.reading == "matrix":
        reading = {"curvature": 2 * jnp.eye(9)}
    step = jax.eval_shape(
        lambda g, s, p: optimizer.update(g, s, p, **reading), params, optimizer.init(params), params
    )
    assert jax.tree.structure(step[0]) == jax.tree.structure(params)


def test_a_recording_does_ask() -> None:
    """Else the test above would hold of anything."""
    from beliefnav import recording

    optimizer = recording.record(rules.adam(0.1), coordinates={"w": [0]}, capacity=2)
    params = {"w": jnp.ones(3)}
    _, state = optimizer.update(params, optimizer.init(params), params)
    assert "innovation" in recording.to_dataset(state, params)
