"""An optimum whose prior variance and hazard are learned: dense evidence, and streams."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beliefnav.beliefs import FisherOptimum, HazardGrid, initial_variance
from beliefnav.beliefs.landscape.fisher_optimum import WEIGHT
from tests import oracles
from tests.beliefs import laws

EXAMPLES = 16
GRID = HazardGrid.log_uniform(1e-9, 0.1)
POINTS = 64
ENTRIES = 300


def recording(steps: int, entries: int, variance: float = 1.0) -> tuple[Any, Any, Any]:
    """Gradients [step, entry] of one task, readings of the curvature and positions."""
    rng = np.random.default_rng(0)
    h = rng.gamma(2.0, 0.1, size=(steps, entries))
    position = np.concatenate([np.zeros((1, entries)), rng.normal(size=(steps - 1, entries))])
    optimum = np.sqrt(variance) * rng.normal(size=entries)
    noise = np.sqrt(h / EXAMPLES) * rng.normal(size=h.shape)
    return h * (position - optimum) + noise, h, position


def run(model: FisherOptimum, y: Any, h: Any, position: Any) -> list[Any]:
    """State and diagnostics after every step."""
    filter_ = model.filter()
    step = jax.jit(lambda s, m, *seen: laws.observe(filter_, filter_.predict(s, m), *seen))
    state, rows = filter_.init(jnp.zeros(y.shape[1:])), []
    for now, reading, moved in zip(y, h, np.diff(position, axis=0, prepend=0), strict=True):
        rows.append(step(state, moved, now, reading))
        state = rows[-1][0]
    return rows


# --- against dense Gaussians --------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("start", [1e-3, 1.0, 1e3])
def test_the_prior_variance_is_that_of_the_largest_evidence(start: float) -> None:
    y, h, position = recording(8, 40)
    more = 100  # steps of the fixed point without readings, which repeat nothing that was read
    nothing, still = np.full((more, 40), np.nan), np.tile(position[-1], (more, 1))
    streams = (y, nothing), (h, nothing), (position, still)
    model = FisherOptimum(0.0, EXAMPLES, start, learn_variance=True)
    state, _ = run(model, *map(np.concatenate, streams))[-1]
    want = oracles.most_evident_variance(y, h, position, EXAMPLES, start, WEIGHT)
    # A minimum by values is found to the root of float64's precision.
    np.testing.assert_allclose(state.initial_variances, [want], rtol=1e-6)
    # What was learned of the prior is as if it had been known.
    known = FisherOptimum(0.0, EXAMPLES, float(state.initial_variances[0]))
    other, _ = run(known, y, h, position)[-1]
    # A start of 1e-3 loses three digits of 1 - v / v0.
    np.testing.assert_allclose(state.distance_mean, other.distance_mean, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(state.distance_variance, other.distance_variance, rtol=1e-8)


@pytest.mark.usefixtures("x64")
def test_the_hazard_is_weighed_by_two_gaussians_a_step() -> None:
    y, h, position = recording(9, 5)
    y[5:] += h[5:] * 1.5  # a task is drawn anew
    grid = np.array([1e-3, 0.05, 0.4])
    rows = run(FisherOptimum(HazardGrid(jnp.asarray(grid)), EXAMPLES, 0.7), y, h, position)
    state, info = rows[-1]
    oracle = oracles.switch_evidence(y, h, position, EXAMPLES, 0.7, grid)
    mean, variance, switches, weights, densities = oracle
    assert switches[5] > 2 * switches[4]
    believed, v = state.posterior().optimum(position[-1])

    def close(got: Any, want: Any) -> None:  # up to round-off of float64
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)

    close(believed, mean)
    close(v, variance)
    close([s.switch_probability for s, _ in rows], switches)
    close([i.switch_probability for _, i in rows], switches)
    close([i.log_density for _, i in rows], densities)
    close(jnp.exp(state.hazard_belief.log_weights), weights)
    close(state.posterior().hazard, weights @ grid)
    close(info.hazard, weights @ grid)


# --- on streams of the model --------------------------------------------------------------------


def stream(
    model: FisherOptimum, steps: int, hazard: float = 0.0, *, read: bool, scale: float = 0.1
) -> dict[str, Any]:
    """A learner that goes where it believes the optimum to be; optima have the variance 1.

    Curvatures have the mean ``scale``: the gradient of an example has that variance, so that a
    batch sees an optimum with a signal of ``16 * scale`` in units of the noise.
    """
    filter_ = model.filter()
    keys = jax.random.split(jax.random.key(0), steps + 2)
    h = scale * jax.random.gamma(keys[0], 2.0, (ENTRIES,)) / 2

    def step(carry: Any, key: Any) -> Any:
        state, moved, position, optimum = carry
        of_switch, of_optimum, of_noise = jax.random.split(key, 3)
        switched = jax.random.bernoulli(of_switch, hazard)
        optimum = jnp.where(switched, jax.random.normal(of_optimum, (ENTRIES,)), optimum)
        noise = jax.random.normal(of_noise, (EXAMPLES, ENTRIES))
        gradients = (h * (position - optimum))[None] + jnp.sqrt(h)[None] * noise
        square = jnp.mean(gradients**2, 0) if read else None
        state = filter_.update(filter_.predict(state, moved), gradients.mean(0), square)
        moved = state.distance_mean
        scales = state.initial_variances
        seen = {
            "variance": jnp.zeros(()) if scales is None else scales[0],
            "hazard": state.posterior().hazard,
            "found": state.switch_probability > 0.5,
            "switched": switched,
        }
        return (state, moved, position + moved, optimum), seen

    still = jnp.zeros(ENTRIES)
    start = filter_.init(still), still, still, jax.random.normal(keys[1], (ENTRIES,))
    return jax.jit(lambda keys: jax.lax.scan(step, start, keys)[1])(keys[2:])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("read", [True, False], ids=["read", "batch"])
@pytest.mark.parametrize("wrong", [1e-3, 1.0, 1e3])
def test_the_prior_variance_neither_falls_to_zero_nor_runs_away(wrong: float, read: bool) -> None:
    found = stream(FisherOptimum(0.0, EXAMPLES, wrong, learn_variance=True), 1000, read=read)
    variance = np.asarray(found["variance"])
    # The variance of 300 optima is known to 8 %; curvatures of the batch are biased as stated. A
    # start of 1e3 has the weight of a tenth of an entry: it adds a third.
    low, high = (0.8, 1.6) if read else (1 / 3, 5)
    assert low < variance[-1] < high
    # And it rests there: the last half of the steps changes it by little.
    assert abs(np.log(variance[-1] / variance[500])) < (0.05 if read else 0.4)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_the_bias_of_the_batch_without_readings_is_as_stated() -> None:
    """Where the signal of a batch is 16 times its noise, the estimate is low for long."""
    model = FisherOptimum(0.0, EXAMPLES, 1.0, learn_variance=True)
    batch, read = (stream(model, 1000, read=r, scale=1.0)["variance"] for r in (False, True))
    assert batch[-1] < 0.4 < 0.8 < read[-1] < 1.3
    assert batch[-1] > 1.5 * batch[100]  # it rises


@pytest.mark.usefixtures("x64")
def test_the_hazard_of_a_stream_that_does_not_switch_falls() -> None:
    steps = 1000
    found = stream(FisherOptimum(GRID, EXAMPLES, 1.0), steps, read=True)
    assert not found["found"].any()
    # After T steps without an event the mean of a log-uniform prior from l is 1 / (T log(1 / Tl)).
    assert found["hazard"][-1] < 1 / (10 * steps)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize("hazard", [0.01, 0.003])
def test_the_hazard_of_a_stream_that_switches_is_found(hazard: float, learn: bool) -> None:
    start = 0.1 if learn else 1.0
    steps = 2000
    model = FisherOptimum(GRID, EXAMPLES, start, learn_variance=learn)
    found = stream(model, steps, hazard, read=True)
    events = int(found["switched"].sum())
    assert events >= 5
    np.testing.assert_array_equal(found["found"], found["switched"])  # each, at its step
    # The posterior mean after so many events in so many steps, up to the spacing of the grid.
    np.testing.assert_allclose(found["hazard"][-1], events / steps, rtol=0.05)
    if learn:
        assert 0.7 < found["variance"][-1] < 1.4


@pytest.mark.usefixtures("x64")
def test_without_readings_nothing_is_learned_of_the_hazard() -> None:
    found = stream(FisherOptimum(GRID, EXAMPLES, 1.0), 100, 0.05, read=False)
    assert found["switched"].any()
    prior = float(jnp.mean(GRID.hazards))
    np.testing.assert_allclose(found["hazard"], prior, rtol=1e-6)  # its grid is float32
    assert not found["found"].any()


# --- input --------------------------------------------------------------------------------------

LEARNED = FisherOptimum(GRID, EXAMPLES, learn_variance=True)
PARAMS = {"w": jnp.linspace(-1, 1, 6).reshape(2, 3), "b": jnp.zeros(3), "s": jnp.ones(())}


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 1e30])
@pytest.mark.parametrize("read", [True, False])
def test_a_gradient_that_says_nothing_leaves_what_was_believed(value: float, read: bool) -> None:
    """A constant loss, a frozen layer, a first gradient that is not finite."""
    filter_ = LEARNED.filter()
    state = before = filter_.init(PARAMS)
    gradient = jax.tree.map(lambda p: jnp.full_like(p, value), PARAMS)
    for _ in range(3):
        predicted = filter_.predict(state, jax.tree.map(jnp.zeros_like, PARAMS))
        state, info = laws.observe(filter_, predicted, gradient, gradient if read else None)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves((state, state.posterior(), info)))
    np.testing.assert_allclose(state.initial_variances, before.initial_variances, rtol=1e-6)
    np.testing.assert_array_equal(jax.tree.leaves(state.distance_mean)[0], 0)
    np.testing.assert_allclose(jnp.exp(state.hazard_belief.log_weights), 1 / POINTS, rtol=1e-5)


def test_one_entry_learns_a_prior_of_its_own() -> None:
    """Its optimum is known, at 3: the prior variance goes to 9, and not beyond."""
    filter_ = FisherOptimum(0.0, EXAMPLES, 1e-2, learn_variance=True).filter()
    state, position = filter_.init(jnp.zeros(())), jnp.zeros(())
    for _ in range(60):
        predicted = filter_.predict(state, state.distance_mean)
        position = predicted.position
        state = filter_.update(predicted, 2.0 * (position - 3.0), jnp.full_like(position, 2.0))
    # A tenth of an entry has the start, which is nearly 0.
    np.testing.assert_allclose(state.initial_variances, [9 / 1.1], rtol=0.01)


def test_arrays_learn_apart_and_empty_ones_are_allowed() -> None:
    params = {"a": jnp.zeros(100), "b": jnp.zeros(100), "none": jnp.zeros(0)}
    filter_ = FisherOptimum(0.0, EXAMPLES, 1.0, learn_variance=True).filter()
    rng = np.random.default_rng(0)
    optimum = {
        k: jnp.asarray(s * rng.normal(size=p.shape), jnp.float32)
        for (k, p), s in zip(params.items(), (0.1, 10.0, 1.0), strict=True)
    }
    state = filter_.init(params)
    ones = jax.tree.map(jnp.ones_like, params)
    for _ in range(40):
        predicted = filter_.predict(state, state.distance_mean)
        y = jax.tree.map(jnp.subtract, predicted.position, optimum)
        state = filter_.update(predicted, y, ones)
    a, b, none = state.initial_variances
    want = [float(jnp.mean(optimum[k] ** 2)) for k in ("a", "b")]
    np.testing.assert_allclose([a, b], want, rtol=0.02, atol=2e-3)  # up to the start's weight
    assert none == 1.0


def test_a_start_that_varies_within_an_array_is_averaged() -> None:
    start = jnp.array([1.0, 3.0])
    state = FisherOptimum(0.0, EXAMPLES, start, learn_variance=True).filter().init(jnp.zeros(2))
    np.testing.assert_allclose(state.start_variances, [2.0])
    np.testing.assert_allclose(state.initial_variances, [2.0])
    state = LEARNED.filter().init(PARAMS)
    np.testing.assert_allclose(
        state.start_variances, jax.tree.leaves(initial_variance(PARAMS)), rtol=1e-6
    )


def test_the_belief_says_that_it_learns() -> None:
    values = {fact.subject: fact.value for fact in LEARNED.facts()}
    assert values["task length"] == "learned"
    assert values["optimum prior"] == "learned, an array"
    for learned in (LEARNED, FisherOptimum(0.1, EXAMPLES, 1.0, learn_variance=True)):
        with pytest.raises(ValueError, match="Cannot write FisherOptimum as a NumPyro program"):
            learned.numpyro_model(displacement=jnp.zeros((3, 2)), curvature=jnp.ones((3, 2)))
    with pytest.raises(ValueError, match=r"FisherOptimum: hazards must be in \[0, 1\]"):
        FisherOptimum(HazardGrid(np.array([1.5])), EXAMPLES).filter().init(PARAMS)
