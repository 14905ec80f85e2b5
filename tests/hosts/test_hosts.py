"""In every host an optimizer takes the steps that it takes in a plain loop, and believes the same.

The plain loop is given the gradients that the host computed, on tuples of arrays.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from beliefnav import optimum, posterior, rules, wrappers
from beliefnav.rules.catalogue import CATALOGUE
from tests.hosts.hosts import HOSTS, Extra, Host, Optimizer, loss

PyTree = Any

SHAPES: dict[str, Callable[[], Optimizer]] = {
    "adam": lambda: rules.adam(0.01),
    "secant": lambda: rules.secant(0.1),
    "hazard_filter": lambda: rules.hazard_filter(0.01, examples=8),
    "muon": lambda: rules.muon(0.003),
    "two_hypothesis": lambda: wrappers.two_hypothesis(rules.adam(0.01), 0.05, 4.0, value_fn=loss),
    "iterate_averaging": lambda: wrappers.iterate_averaging(rules.adam(0.01), variance=True),
}
"""One for each shape of state: moments, displacements, layers, matrices, and two around others."""


def nothing(params: PyTree) -> dict[str, Any]:
    del params
    return {}


class Spied(NamedTuple):
    """The last gradient, and the state of the optimizer."""

    gradient: PyTree
    inner_state: PyTree


def spied(optimizer: Optimizer) -> Optimizer:
    """An optimizer that keeps the gradient that it was given."""

    def init(params: PyTree) -> Any:
        return Spied(jax.tree.map(jnp.zeros_like, params), optimizer.init(params))

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> Any:
        result, inner_state = optimizer.update(updates, state.inner_state, params, **extra)
        return result, Spied(updates, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


@cache
def plain(build: Callable[[], Optimizer], extra: Extra) -> tuple[Callable[..., Any], ...]:
    """The two functions of an optimizer, the second with its step, compiled once for all hosts."""
    optimizer = build()

    @jax.jit
    def step(gradient: PyTree, state: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
        updates, state = optimizer.update(gradient, state, params, **extra(params))
        return optax.apply_updates(params, updates), state

    return optimizer.init, step


def layered(tree: PyTree) -> PyTree:
    """The two arrays of each of two layers, in tuples."""
    a, b, c, d = jax.tree.leaves(tree)
    return (a, b), (c, d)


def assert_close(got: PyTree, want: PyTree) -> None:
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        # Three steps of rounding in float32, in programs that are compiled with other things.
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def assert_follows(host: Host, build: Callable[[], Optimizer], extra: Extra) -> None:
    init, step = plain(build, extra if host.forwards else nothing)
    steps = host.train(spied(build()), extra)
    seen = next(steps)
    start = params = layered(seen.params)
    state = init(params)
    for seen in steps:  # one by one: flax.nnx changes its state in place
        params, state = step(layered(seen.opt_state.gradient), state, params)
        assert_close(seen.params, params)
    assert_close(posterior(seen.opt_state), posterior(state))
    assert not np.allclose(params[0][1], start[0][1], rtol=1e-4)


@pytest.mark.parametrize("rule", SHAPES)
@pytest.mark.parametrize("host", HOSTS)
def test_a_shape_of_state_steps_as_in_a_plain_loop(host: str, rule: str) -> None:
    assert_follows(HOSTS[host], SHAPES[rule], nothing)


@pytest.mark.parametrize("host", HOSTS)
def test_an_average_is_read_wherever_the_host_keeps_it(host: str) -> None:
    init, step = plain(SHAPES["iterate_averaging"], nothing)
    steps = HOSTS[host].train(spied(SHAPES["iterate_averaging"]()), nothing)
    seen = next(steps)
    params = layered(seen.params)
    state = init(params)
    for seen in steps:
        params, state = step(layered(seen.opt_state.gradient), state, params)
        got = optimum(seen.opt_state, seen.params)
        assert jax.tree.structure(got) == jax.tree.structure(seen.params)
        assert_close(got, optimum(state, params))
    first, last = (jax.tree.leaves(x)[0] for x in (optimum(state, params), params))
    assert not np.allclose(first, last, rtol=1e-4)


FUNCTIONS: dict[str, Callable[[], Optimizer]] = {
    "metric": lambda: rules.natural_gradient(0.05, metric=lambda p: jax.tree.map(jnp.cosh, p)),
    "mask": lambda: wrappers.two_hypothesis(
        rules.adam(0.01),
        0.5,
        1.0,
        mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p),
        value_fn=loss,
    ),
}
"""Arguments that may be trees or functions."""


@pytest.mark.parametrize("argument", FUNCTIONS)
def test_a_function_that_a_host_takes_apart_is_still_one(argument: str) -> None:
    """optimistix makes closures, and the functions that they hold, into trees."""
    assert_follows(HOSTS["optimistix"], FUNCTIONS[argument], nothing)


# --- every rule ---------------------------------------------------------------------------------


@cache
def of_catalogue(name: str) -> tuple[Callable[[], Optimizer], Extra]:
    """A rule of the catalogue, and what it may read beside the gradient."""
    entry = CATALOGUE[name]

    def extra(params: PyTree) -> dict[str, Any]:
        if entry.reading is None:
            return {}
        if entry.reading == "diagonal":
            return {"curvature": jax.tree.map(lambda p: jnp.full_like(p, 0.7), params)}
        return {"curvature": 0.7 * jnp.eye(sum(p.size for p in jax.tree.leaves(params)))}

    return lambda: entry.rule(**entry.arguments), extra


def asks_for_a_reading(name: str) -> bool:
    optimizer, params = of_catalogue(name)[0](), jnp.ones(3)
    try:
        optimizer.update(params, optimizer.init(params), params)
    except TypeError:
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("host", HOSTS)
def test_every_rule_steps_as_in_a_plain_loop(host: str, name: str) -> None:
    if not HOSTS[host].forwards and asks_for_a_reading(name):
        with pytest.raises(TypeError, match="has no place for it"):
            list(HOSTS[host].train(of_catalogue(name)[0](), nothing))
    else:
        assert_follows(HOSTS[host], *of_catalogue(name))
