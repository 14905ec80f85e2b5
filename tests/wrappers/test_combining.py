"""An average with another memory, from averages that were kept: against the average itself."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import gammaln

from beliefnav import beliefs, optimum, wrappers

# The code of optax, which is wrapped, promotes dtypes.
pytestmark = pytest.mark.usefixtures("dtype_promotion")

averaging: Any = wrappers.iterate_averaging
STEPS = 240
POWERS = (1.0, 8.0)
"""Of the averages that are kept."""


def profile(power: float, steps: int = STEPS) -> np.ndarray:
    """The weights of an average of the first so many iterates, by the gamma function."""
    s = np.arange(1.0, steps + 1)
    weights = np.exp(gammaln(s + power) - gammaln(s) - gammaln(steps + power) + gammaln(steps))
    return np.pad(weights / weights.sum(), (0, STEPS - steps))


def run(parts: int) -> tuple[np.ndarray, list[Any], list[int]]:
    """A path [step, coordinate], what both averages were at the end of each part, and when.

    One average stands around the other. The path is white noise, handed over as it is.
    """
    inner = averaging(optax.identity(), beliefs.PolynomialLevel(POWERS[0]))
    optimizer = averaging(inner, beliefs.PolynomialLevel(POWERS[1]))
    path = jnp.asarray(np.random.default_rng(0).normal(size=(STEPS, 2000)))
    update = jax.jit(optimizer.update)
    state, taken, steps = optimizer.init(path[0]), [], []
    _, state = update(jnp.zeros(2000), state, path[0])  # at which no step was taken yet
    for t, params in enumerate(path, 1):
        if t % (STEPS // parts) == 0:
            taken += [optimum(part, params) for part in (state.inner_state, state)]
            steps += [t, t]
        _, state = update(jnp.zeros(2000), state, params)
    return np.asarray(path), taken, steps


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("parts", [1, 4])
def test_it_is_the_nearest_profile_and_misses_the_average_by_its_error(parts: int) -> None:
    path, taken, steps = run(parts)
    powers = [*POWERS] * parts
    kept = np.stack([profile(p, t) for p, t in zip(powers, steps, strict=True)])
    for power in (0.0, 0.5, 2.0, 4.0, 16.0):
        found = wrappers.combining.combined_average(taken, powers, steps, power)
        wanted = profile(power)
        np.testing.assert_allclose(found.coefficients.sum(), 1, rtol=1e-12)
        missed = found.coefficients @ kept - wanted
        size = float(np.linalg.norm(wanted))
        np.testing.assert_allclose(found.error, np.linalg.norm(missed) / size, rtol=1e-7)
        # Stationary: what remains is orthogonal to all directions in which the sum stays 1.
        slopes = (kept[1:] - kept[0]) @ missed
        np.testing.assert_allclose(slopes, 0, atol=1e-10 * size**2)
        # Exactly the combination of the path, and from the average itself as far as it says: the
        # root mean square over 2,000 coordinates has a standard error of 1 / sqrt(4000).
        np.testing.assert_allclose(found.mean, found.coefficients @ kept @ path, atol=1e-10)
        distance = np.sqrt(np.mean((np.asarray(found.mean) - wanted @ path) ** 2)) / size
        np.testing.assert_allclose(distance, found.error, rtol=5 / np.sqrt(4000))


@pytest.mark.usefixtures("x64")
def test_an_average_that_is_there_is_given_back() -> None:
    _, taken, steps = run(1)
    for i, power in enumerate(POWERS):
        found = wrappers.combining.combined_average(taken, POWERS, steps, power)
        assert found.error < 1e-10
        np.testing.assert_allclose(found.mean, taken[i], rtol=1e-10, atol=1e-12)
    alone = wrappers.combining.combined_average(taken[:1], POWERS[:1], steps[:1], 4.0)
    np.testing.assert_array_equal(alone.mean, taken[0])
    gap = np.linalg.norm(profile(1.0) - profile(4.0)) / np.linalg.norm(profile(4.0))
    np.testing.assert_allclose(alone.error, gap, rtol=1e-10)


DOCUMENTED = {1: (0.50, 0.15, 0.16), 2: (0.34, 0.07, 0.10), 4: (0.23, 0.02, 0.03)}
"""Snapshots -> the errors of p = 0, 2 and 4 after 1,000 steps, as the module says."""


@pytest.mark.parametrize("parts", DOCUMENTED)
def test_snapshots_along_the_way_bring_the_error_down(parts: int) -> None:
    steps = [1000 * k // parts for k in range(1, parts + 1) for _ in POWERS]
    nothing = [jnp.zeros(1)] * len(steps)
    for power, error in zip((0.0, 2.0, 4.0), DOCUMENTED[parts], strict=True):
        found = wrappers.combining.combined_average(nothing, [*POWERS] * parts, steps, power)
        np.testing.assert_allclose(found.error, error, atol=0.006)  # two digits


def test_what_stood_still_stays_and_dtypes_are_kept() -> None:
    tree = {"a": jnp.full(3, 0.1), "b": [jnp.full((2, 2), 1 / 3, jnp.bfloat16), None]}
    found = wrappers.combining.combined_average([tree] * 4, [*POWERS] * 2, [50, 50, 100, 100], 3.0)
    assert jax.tree.structure(found.mean) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, found.mean, tree)
    assert [x.dtype for x in jax.tree.leaves(found.mean)] == [jnp.float32, jnp.bfloat16]


def test_what_cannot_be_combined_is_refused() -> None:
    one = [jnp.ones(2)]
    with pytest.raises(ValueError, match="must be as many.*got 1, 2 and 1"):
        wrappers.combining.combined_average(one, [1.0, 2.0], [10], 1.0)
    with pytest.raises(ValueError, match="at least one; got 0, 0 and 0"):
        wrappers.combining.combined_average([], [], [], 1.0)
    with pytest.raises(ValueError, match="a power must be a non-negative, finite number, got -1"):
        wrappers.combining.combined_average(one, [-1.0], [10], 1.0)
    for steps in (0, 2.5):
        wrong: Any = [steps]
        with pytest.raises(ValueError, match="steps must be positive whole numbers"):
            wrappers.combining.combined_average(one, [1.0], wrong, 1.0)


def test_trees_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="trees of the same arrays"):
        wrappers.combining.combined_average(
            [jnp.ones(2), jnp.ones((3, 2))], [1.0, 8.0], [10, 10], 2.0
        )
    with pytest.raises(ValueError, match="positive whole numbers"):
        endless: Any = [np.inf]
        wrappers.combining.combined_average([jnp.ones(2)], [1.0], endless, 2.0)
