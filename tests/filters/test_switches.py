"""When tasks switched: against all patterns of switches there may have been."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beliefnav import beliefs, filters
from beliefnav.beliefs import HazardGrid, RunLengths, SwitchingOptimum
from tests import oracles

MODEL = SwitchingOptimum(
    curvature=np.array([0.8, -0.4]),
    noise_variance=np.array([0.5, 0.1]),
    prior_variance=np.array([1.0, 2.0]),
    hazard=HazardGrid(np.array([0.05, 0.5]), np.array([2.0, 1.0])),
    prior_mean=np.array([0.3, 0.0]),
)
KNOWN = dataclasses.replace(MODEL, hazard=0.3)


def recording(seed: int, num_steps: int) -> tuple[Any, Any]:
    return oracles.switching_recording(MODEL, seed, num_steps)


def drawn(belief: RunLengths, y: Any, d: Any, seed: int, num_draws: int) -> tuple[Any, Any]:
    key = jax.random.key(seed)

    @jax.jit
    def draw(y: Any, d: Any) -> Any:
        return filters.sample_switches(belief, y, d, key=key, num_draws=num_draws)

    return draw(jnp.asarray(y), jnp.asarray(d))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("model", [KNOWN, MODEL], ids=["known", "grid"])
def test_run_lengths_are_those_of_all_patterns_of_switches(model: SwitchingOptimum):
    y, d = recording(0, 8)
    got = filters.change_points(RunLengths(model, 8), jnp.asarray(y), jnp.asarray(d))
    want, _ = oracles.switch_patterns(oracles.tasks(model), y, d)
    # Float64 round-off of eight steps.
    close = partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-13)
    close(got.run_length, want.run_length)
    close(got.switch_probability, want.switch_probability)
    close(got.hazard, want.hazard)
    np.testing.assert_array_equal(got.dropped_mass, 0)
    close(np.diagonal(got.run_length), want.run_length.diagonal())  # no switch yet
    # Float64 round-off of two ways to add up.
    np.testing.assert_allclose(got.switch_probability[1:], got.run_length[1:, 0], rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_of_more_run_lengths_than_are_kept_the_likeliest_add_up_to_one():
    """On a tree: all of its parameters switch together."""
    y, d = recording(1, 20)
    want = oracles.kept_run_lengths(oracles.tasks(MODEL), y, d, 4)
    h, noise, v0, mu = ({"a": x[:1], "b": [x[1]]} for x in oracles.tasks(MODEL)[:4])
    tree = SwitchingOptimum(h, noise, v0, MODEL.hazard, mu)
    streams = ({"a": jnp.asarray(x[:, :1]), "b": [jnp.asarray(x[:, 1])]} for x in (y, d))
    got = filters.change_points(RunLengths(tree, 4), *streams)
    # Float64 round-off of twenty steps.
    np.testing.assert_allclose(got.run_length.sum(1), 1, rtol=1e-12)
    assert (np.count_nonzero(got.run_length, 1) <= 4).all()
    np.testing.assert_allclose(got.run_length, want.run_length, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(got.hazard, want.hazard, rtol=1e-9)
    np.testing.assert_allclose(got.dropped_mass, want.dropped_mass, rtol=1e-9, atol=1e-15)
    assert want.dropped_mass[-1] > 0


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("model", [KNOWN, MODEL], ids=["known", "grid"])
def test_draws_of_switches_have_the_frequencies_of_their_patterns(model: SwitchingOptimum):
    """In hindsight, together with the hazard."""
    y, d = recording(2, 6)
    num_draws = 20_000
    switches, hazards = drawn(RunLengths(model, 6), y, d, 3, num_draws)
    tasks = oracles.tasks(model)
    _, patterns = oracles.switch_patterns(tasks, y, d)
    np.testing.assert_array_equal(switches[:, 0], False)
    assert switches.shape == (num_draws, 6) and switches.dtype == bool
    # Patterns and hazards as one number each.
    code = 2 ** np.arange(6)
    found = np.asarray(switches) @ code * 2 + np.searchsorted(tasks.hazards, np.asarray(hazards))
    possible = (patterns.switches @ code * 2)[:, None] + np.arange(len(tasks.hazards))
    assert np.isin(found, possible).all()
    counts = np.bincount(found, minlength=128)[possible.ravel()]
    expected = num_draws * patterns.probability.ravel()
    # Pearson's chi-square of the patterns that are expected five times or more, the others as one.
    often = expected >= 5
    counts, expected = (np.append(x[often], x[~often].sum()) for x in (counts, expected))
    chi_square = ((counts - expected) ** 2 / np.maximum(expected, 1)).sum()
    degrees = len(counts) - 1
    assert degrees > 20
    # Of mean `degrees` and variance twice that.
    assert chi_square < degrees + 5 * np.sqrt(2 * degrees)


@pytest.mark.usefixtures("x64")
def test_certain_switches_are_always_drawn():
    """Between them nothing is, through many tasks of more steps than are kept."""
    lengths = [5, 1, 9, 2, 13]
    begins = np.cumsum([0, *lengths[:-1]])
    optimum = np.repeat([0.0, 7.0, -7.0, 14.0, 0.0], lengths)
    rng = np.random.default_rng(4)
    y = -optimum + rng.normal(0, 0.1, 30)
    model = SwitchingOptimum(1.0, 0.01, 100.0, 1e-3)
    switches, hazards = drawn(RunLengths(model, 5), y, np.zeros(30), 5, 50)
    want = np.isin(np.arange(30), begins[1:])
    # A switch that is not there has odds of 1e-3 * 0.1 / 10.
    np.testing.assert_array_equal(switches, np.tile(want, (50, 1)))
    np.testing.assert_array_equal(hazards, 1e-3)


def test_change_points_of_many_streams():
    """vmap is the loop over streams, each with switches of its own."""
    y, d = (jnp.asarray(x, jnp.float32) for x in recording(6, 10))
    belief = RunLengths(SwitchingOptimum(1.0, 0.5, 1.0, 0.2), 5)
    together = jax.jit(jax.vmap(partial(filters.change_points, belief), 1, 0))(y, d)
    alone = jax.jit(partial(filters.change_points, belief))
    for i in range(2):
        # Float32 round-off.
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-6),
            together,
            alone(y[:, i], d[:, i]),
        )


@pytest.mark.parametrize("num_draws", [0, -3])
def test_at_least_one_draw(num_draws: int):
    belief, y = RunLengths(SwitchingOptimum(1.0, 0.5, 1.0, 0.2), 5), jnp.zeros(3)
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=f"num_draws must be at least 1, got {num_draws}"):
        filters.sample_switches(belief, y, y, key=key, num_draws=num_draws)


@pytest.mark.parametrize(
    "belief",
    [
        beliefs.TwoHypotheses(SwitchingOptimum(1.0, 0.5, 1.0, 0.2)),
        beliefs.RunLengthReset(SwitchingOptimum(1.0, 0.5, 1.0, 0.2)),
        beliefs.Optimum(1.0, 0.5, 1.0),
    ],
)
def test_other_beliefs_have_no_run_lengths(belief: Any):
    y, draw = jnp.zeros(3), partial(filters.sample_switches, key=jax.random.key(0), num_draws=1)
    for run in (filters.change_points, draw):
        with pytest.raises(ValueError, match=f"find switches with {type(belief).__name__}"):
            run(belief, y, y)


def test_streams_must_match():
    belief = RunLengths(SwitchingOptimum(1.0, 0.5, 1.0, 0.2), 5)
    draw = partial(filters.sample_switches, key=jax.random.key(0), num_draws=1)
    runs: list[Any] = [filters.change_points, draw]
    for run in runs:
        with pytest.raises(ValueError, match="displacement must be recorded like the gradient"):
            run(belief, jnp.zeros(3), jnp.zeros(2))
        with pytest.raises(ValueError, match="needs streams"):
            run(belief, jnp.zeros(()), jnp.zeros(()))
        with pytest.raises(ValueError, match="without displacement="):
            run(belief, jnp.zeros(3), None)
