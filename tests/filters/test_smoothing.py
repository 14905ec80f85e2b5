"""Filter, smoother, paths and forecasts of linear-Gaussian models: the conditioned joint Gaussian.

What a case needs is computed once, without jit: a few steps are sooner run than compiled, and all
streams have entries of one shape, whose operations compile once.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from beliefnav import beliefs, filters
from beliefnav.beliefs import LocalLevel, Optimum, OrnsteinUhlenbeck, Secant, UnknownNoise
from beliefnav.recording import Recording
from tests import oracles
from tests.beliefs import laws

# A third of the time to compile what runs for a moment.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

T, CUT = 6, 4
ENTRY = (2, 2)

PyTree = Any


def recorded(seed: int, missing: float = 0.3) -> np.ndarray:
    """A stream [T, 2, 2] with missing entries, of which one is never seen."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0.3, 1.5, (T, *ENTRY))
    values = np.where(rng.random(values.shape) < missing, np.nan, values)
    values[:, 0, 1] = np.nan
    values[0, 1, 1] = np.inf
    return values


def walked(seed: int) -> np.ndarray:
    """Displacements [T, 2, 2], of which some are 0."""
    rng = np.random.default_rng(seed)
    moves = rng.normal(0, 0.8, (T, *ENTRY))
    moves[2] = 0
    moves[:, 1, 0] *= 1e-3
    return moves


class Case(NamedTuple):
    """A belief, what it is given, and the oracle of one entry: of the gradient and curvature."""

    belief: Any
    recording: Recording
    oracle: Callable[..., oracles.Joint]


OU = {"autocorrelation": 0.8, "process_variance": 0.3, "noise_variance": 1e-4}
LEVEL = {"discount": 0.7, "noise_variance": 0.4, "prior_mean": 0.3, "prior_sample_size": 1.5}
SHARP = {
    "noise_variance": 1e-5,
    "prior_gradient_variance": 2.0,
    "prior_curvature_variance": 1.5,
    "prior_curvature_mean": 0.4,
}
SECANT = {
    "noise_variance": 1e-4,
    "prior_gradient_variance": 2.0,
    "prior_curvature_variance": 1.5,
    "prior_gradient_mean": 0.3,
    "prior_curvature_mean": -0.4,
    "gradient_process_variance": 0.1,
    "curvature_process_variance": 0.2,
    "gradient_autocorrelation": 0.9,
    "curvature_autocorrelation": 0.8,
    "curvature_noise_variance": 0.3,
}
OPTIMUM = {
    "curvature": 1.7,
    "noise_variance": 1e-3,
    "prior_variance": 2.0,
    "prior_mean": 0.4,
    "process_variance": 0.3,
    "autocorrelation": 0.9,
}


def secant(hyper: dict[str, float]) -> Callable[..., oracles.Joint]:
    return lambda y, moved, c: oracles.joint(oracles.secant_model(y, moved, c, **hyper))


def optimum(hyper: dict[str, float]) -> Callable[..., oracles.Joint]:
    r"""The gradient is $h (\theta_t - \theta^*_t)$, the curvature known."""

    def joint(y: np.ndarray, moved: np.ndarray, c: None) -> oracles.Joint:
        h = hyper["curvature"]
        position = np.concatenate([[0], np.cumsum(moved)[:-1]])
        offsets = np.stack([h * position, np.full(len(y), h)], 1)
        joint = oracles.joint(oracles.optimum_model(y, moved, **hyper))
        return joint.read(np.array([[-h], [0.0]]), offsets)

    return joint


def ornstein_uhlenbeck(y: np.ndarray, moved: None, c: None) -> oracles.Joint:
    return oracles.joint(oracles.ornstein_uhlenbeck_model(y, **OU))


def local_level(y: np.ndarray, moved: None, c: None) -> oracles.Joint:
    return oracles.joint(oracles.local_level_model(y, **LEVEL))


# The second sensor has missing entries of its own.
CASES = {
    "ornstein-uhlenbeck": Case(
        OrnsteinUhlenbeck(**OU), Recording({"a": recorded(0)}), ornstein_uhlenbeck
    ),
    "local level": Case(LocalLevel(**LEVEL), Recording([recorded(1)]), local_level),
    "secant, constant": Case(Secant(**SHARP), Recording(recorded(2), walked(2)), secant(SHARP)),
    "secant, two sensors": Case(
        Secant(**SECANT),
        Recording(
            *([f(s), {"b": f(s + 1)}] for f, s in ((recorded, 3), (walked, 5), (recorded, 7)))
        ),
        secant(SECANT),
    ),
    "optimum": Case(Optimum(**OPTIMUM), Recording((recorded(9),), (walked(9),)), optimum(OPTIMUM)),
}
every_case = pytest.mark.parametrize("name", CASES)


def numpy(tree: PyTree) -> PyTree:
    return jax.tree.map(np.asarray, tree)


def arrays(recording: Recording, steps: slice = slice(None)) -> Recording:
    return jax.tree.map(lambda y: jnp.asarray(y[steps]), recording)


class Computed(NamedTuple):
    filtered: Any
    info: Any
    log_likelihood: Any
    smoothed: Any


@functools.cache
def computed(name: str, parallel: bool = False) -> Computed:
    """What the library makes of a case, in float64."""
    belief, recording, _ = CASES[name]
    with jax.enable_x64(True), jax.disable_jit():
        recording = arrays(recording)
        filtered, info = filters.filter_recording(belief, *recording, parallel=parallel)
        log_likelihood = filters.log_likelihood(belief, *recording, parallel=parallel)
        smoothed = filters.smooth_recording(belief, *recording, parallel=parallel)
        return numpy(Computed(filtered, info, log_likelihood, smoothed))


def leaves_of(tree: PyTree, like: PyTree) -> list[Any]:
    """The leaves of a tree like the recording, or ``None`` for each."""
    structure = jax.tree.structure(like)
    if tree is None:
        return [None] * structure.num_leaves
    return structure.flatten_up_to(tree)


def exact(case: Case, recording: Recording | None = None) -> list[oracles.Joint]:
    """The joint of every entry, for every leaf."""
    gradient, *rest = case.recording if recording is None else recording
    columns = [leaves_of(tree, gradient) for tree in (gradient, *rest)]
    return [
        oracles.joint_per_entry(case.oracle, *streams) for streams in zip(*columns, strict=True)
    ]


def first_leaf(case: Case) -> Case:
    trees = (jax.tree.leaves(tree)[:1] for tree in case.recording)
    return case._replace(recording=Recording(*(tree[0] if tree else None for tree in trees)))


@functools.cache
def oracle(name: str) -> list[oracles.Joint]:
    return exact(CASES[name])


def close(got: Any, want: Any) -> None:
    # Float64 round-off of the oracle's solve, of condition number up to 1e6.
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


def assert_posterior(
    posterior: Any, like: PyTree, means: list[np.ndarray], covariances: list[np.ndarray]
) -> None:
    """Means [step, k, ...] and covariances [step, k, k, ...] of every leaf."""
    fields = [leaves_of(field, like) for field in posterior[:5]]
    for entry in zip(*fields, means, covariances, strict=True):
        g, gg, h, hh, gh, mean, covariance = entry
        assert g.dtype == np.float64
        close(g, mean[:, 0])
        close(gg, covariance[:, 0, 0])
        if mean.shape[1] == 1:
            assert h is None and hh is None
            continue
        close(h, mean[:, 1])
        close(hh, covariance[:, 1, 1])
        if gh is not None:
            close(gh, covariance[:, 0, 1])
            assert np.any(np.abs(gh) > 1e-3)


# --- filter and smoother ------------------------------------------------------------------------


@every_case
def test_filter_is_the_conditioned_joint_gaussian(name: str):
    got, want = computed(name), oracle(name)
    gradient = CASES[name].recording.gradient
    means, covariances = zip(*((j.filtered_mean, j.filtered_covariance) for j in want), strict=True)
    assert_posterior(got.filtered, gradient, list(means), list(covariances))
    for density, joint in zip(jax.tree.leaves(got.log_likelihood), want, strict=True):
        close(density, joint.log_likelihood)
    for surprise, joint in zip(jax.tree.leaves(got.info.surprise), want, strict=True):
        close(surprise.sum(0), joint.surprise)
    missing = jax.tree.map(lambda y: ~np.isfinite(y), gradient)
    jax.tree.map(np.testing.assert_array_equal, got.info.missing, missing)


def smoothed_moments(joints: list[oracles.Joint]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    covariances = [np.stack([j.smoothed_covariance[t, :, t] for t in range(T)]) for j in joints]
    return [j.smoothed_mean for j in joints], covariances


@every_case
def test_smoother_is_the_conditioned_joint_gaussian(name: str):
    gradient = CASES[name].recording.gradient
    assert_posterior(computed(name).smoothed, gradient, *smoothed_moments(oracle(name)))


@every_case
def test_parallel_is_sequential(name: str):
    jax.tree.map(close, computed(name, parallel=True), computed(name))


@every_case
def test_what_was_never_seen_is_the_prior_moved_on(name: str):
    """The entry of which all is missing: no NaN, and the smoother adds nothing to the filter."""
    case, got = CASES[name], computed(name)
    if name == "secant, two sensors":  # blind to both of its first leaf
        assert np.all(np.isnan(case.recording.curvature[0][:, 0, 1]))

    def check(filtered: Any, smoothed: Any) -> None:
        assert np.all(np.isfinite(filtered))
        close(smoothed[:, 0, 1], filtered[:, 0, 1])

    jax.tree.map(check, got.filtered, got.smoothed)
    for density in jax.tree.leaves(got.log_likelihood):
        assert density[0, 1] == 0


# --- in parts, from a state, ahead --------------------------------------------------------------


def parts(recording: Recording, lengths: tuple[int, ...]) -> list[Recording]:
    ends = np.cumsum(lengths)
    return [arrays(recording, slice(e - n, e)) for n, e in zip(lengths, ends, strict=True)]


@every_case
def test_parts_are_the_whole(name: str):
    belief, recording, _ = CASES[name]
    lengths = (1, 2, 1, 2)
    with jax.enable_x64(True), jax.disable_jit():
        chunks = parts(recording, lengths)
        filtered = list(filters.filter_chunks(belief, iter(chunks)))
        smoothed = list(filters.smooth_chunks(belief, chunks))
    assert [len(jax.tree.leaves(x)[0]) for x in smoothed] == list(reversed(lengths))

    def join(*values: Any) -> np.ndarray:
        return np.concatenate(values)

    want = computed(name)
    jax.tree.map(close, jax.tree.map(join, *filtered), (want.filtered, want.info))
    jax.tree.map(close, jax.tree.map(join, *reversed(smoothed)), want.smoothed)


@every_case
def test_last_state_goes_on_as_in_the_loop_and_ahead(name: str):
    case = CASES[name]
    belief, recording, _ = case
    with jax.enable_x64(True), jax.disable_jit():
        state = filters.last_state(belief, *arrays(recording, slice(CUT)))
        now = jax.tree.map(lambda y: y[CUT], arrays(recording))
        # How the parameters came here.
        moved = jax.tree.map(lambda d: jnp.asarray(d[CUT - 1 :]), recording.displacement)
        filter_ = belief.filter()
        predicted = filter_.predict(state, jax.tree.map(lambda d: d[0], moved))
        going_on, info = laws.observe(filter_, predicted, now.gradient, now.curvature)
        if moved is None:
            ahead = filters.forecast(belief, state, num_steps=T - CUT)
        else:
            ahead = filters.forecast(
                belief, state, displacement=jax.tree.map(lambda d: d[:-1], moved)
            )
        going_on = going_on.posterior()
    want = computed(name)
    there = jax.tree.map(lambda x: x[CUT], (want.filtered, want.info))
    jax.tree.map(close, (going_on, info), there)

    def unseen(y: np.ndarray) -> np.ndarray:
        return np.concatenate([y[:CUT], np.full_like(y[CUT:], np.nan)])

    blind = recording._replace(
        gradient=jax.tree.map(unseen, recording.gradient),
        curvature=jax.tree.map(unseen, recording.curvature),
    )
    joints = exact(case, blind)
    assert_posterior(
        ahead,
        recording.gradient,
        [j.filtered_mean[CUT:] for j in joints],
        [j.filtered_covariance[CUT:] for j in joints],
    )


@pytest.mark.usefixtures("x64")
def test_recording_of_one_step():
    """Nothing to look back on; also the last part of a longer recording."""
    belief, recording, _ = first_leaf(CASES["optimum"])

    @jit
    def run(one: Recording) -> Any:
        smoothed = (filters.smooth_recording(belief, *one, parallel=way) for way in (False, True))
        return filters.filter_recording(belief, *one)[0], *smoothed

    filtered, *smoothed = run(arrays(recording, slice(1)))
    for posterior in smoothed:
        jax.tree.map(close, posterior, filtered)

    belief, recording, _ = CASES["local level"]
    last = next(filters.smooth_chunks(belief, parts(recording, (T - 1, 1))))
    want = jax.tree.map(lambda x: x[-1:], computed("local level").smoothed)
    jax.tree.map(close, last, want)


# --- hyper-parameters ---------------------------------------------------------------------------


def gradients(case: Case, parallel: bool) -> Any:
    """Value and derivatives of the summed log likelihood, by automatic differentiation."""

    def total(belief: Any) -> Any:
        likelihood = filters.log_likelihood(belief, *arrays(case.recording), parallel=parallel)
        return sum(x.sum() for x in jax.tree.leaves(likelihood))

    return jit(jax.value_and_grad(total))(jax.tree.map(jnp.asarray, case.belief))


# Noise of the size of the signal: differences of the oracle are then good to many digits.
SMOOTH_SECANT = SECANT | {"noise_variance": 0.2}
DIFFERENTIABLE = {
    "secant": first_leaf(
        CASES["secant, two sensors"]._replace(
            belief=Secant(**SMOOTH_SECANT), oracle=secant(SMOOTH_SECANT)
        )
    ),
    "optimum": CASES["optimum"],
}
HYPER: dict[str, Any] = {"secant": (SMOOTH_SECANT, secant), "optimum": (OPTIMUM, optimum)}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_derivatives_of_the_likelihood_are_those_of_the_joint(name: str):
    case = DIFFERENTIABLE[name]
    hyper, make = HYPER[name]

    def total(hyper: dict[str, float]) -> float:
        return sum(j.log_likelihood.sum() for j in exact(case._replace(oracle=make(hyper))))

    value, slopes = gradients(case, parallel=False)
    close(value, total(hyper))
    for field, x in hyper.items():
        h = 1e-5 * abs(x)
        want = (total(hyper | {field: x + h}) - total(hyper | {field: x - h})) / (2 * h)
        # Central differences: relative h^2, and round-off of 1e-13 over h.
        np.testing.assert_allclose(getattr(slopes, field), want, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", [pytest.param("secant", marks=pytest.mark.slow), "optimum"])
def test_derivatives_in_parallel_are_the_sequential_ones(name: str):
    jax.tree.map(close, *(gradients(DIFFERENTIABLE[name], parallel) for parallel in (True, False)))


@pytest.mark.usefixtures("x64")
def test_hyper_parameters_vmap():
    case = first_leaf(CASES["secant, two sensors"])
    hypers = [SECANT, {k: v * 1.1 for k, v in SECANT.items()} | {"noise_variance": 1e-8}]
    models = Secant(**{k: jnp.asarray([h[k] for h in hypers]) for k in SECANT})

    def run(model: Secant) -> Any:
        smoothed = filters.smooth_recording(model, *arrays(case.recording))
        return smoothed, filters.log_likelihood(model, *arrays(case.recording))

    smoothed, likelihood = jit(jax.vmap(run))(models)
    for i, hyper in enumerate(hypers):
        joints = exact(case._replace(oracle=secant(hyper)))
        mine = jax.tree.map(lambda x, i=i: x[i], smoothed)
        assert_posterior(mine, case.recording.gradient, *smoothed_moments(joints))
        close(likelihood[i], joints[0].log_likelihood)


# --- unknown noise, positive curvature ----------------------------------------------------------

SCALE, DEGREES = 0.7, 3.0
IN_UNITS = first_leaf(CASES["secant, two sensors"])
UNKNOWN = UnknownNoise(Secant(**SECANT), SCALE, DEGREES)


class Noisy(NamedTuple):
    """Unknown noise over a secant with two sensors; the same read as positive; by both ways."""

    filtered: Any
    info: Any
    smoothed: Any
    positive_filtered: Any
    positive_smoothed: Any


@functools.cache
def noisy(parallel: bool) -> Noisy:
    with jax.enable_x64(True), jax.disable_jit():
        recording, both = arrays(IN_UNITS.recording), beliefs.positive(UNKNOWN)
        way = {"parallel": parallel}
        filtered, info = filters.filter_recording(UNKNOWN, *recording, **way)
        smoothed = filters.smooth_recording(UNKNOWN, *recording, **way)
        positive_filtered = filters.filter_recording(both, *recording, **way)[0]
        positive_smoothed = filters.smooth_recording(both, *recording, **way)
        return numpy(Noisy(filtered, info, smoothed, positive_filtered, positive_smoothed))


def test_unknown_noise_is_the_joint_in_units_that_are_learned():
    (joint,) = exact(IN_UNITS)
    got = noisy(parallel=False)
    total, degrees = DEGREES * SCALE + joint.surprise, DEGREES + joint.num_readings
    assert np.ptp(joint.num_readings) > 3
    # Smoothing uses the noise as it is known at the end: E[sigma^2], an inverse gamma's mean.
    variance = total / (degrees - 2)
    (mean,), (covariance,) = smoothed_moments([joint])
    gradient = IN_UNITS.recording.gradient
    assert_posterior(got.smoothed, gradient, [mean], [covariance * variance])
    want = oracles.student_log_likelihood(joint, SCALE, DEGREES)
    close(got.info.log_density.sum(0), want)


@pytest.mark.slow
def test_unknown_noise_of_two_sensors_in_parallel_is_sequential():
    jax.tree.map(close, noisy(parallel=True), noisy(parallel=False))


def test_smoothed_and_positive_is_the_truncated_gaussian():
    """On the variances that unknown noise leaves; scipy truncates the curvature."""
    got, plain = noisy(parallel=False).positive_smoothed, noisy(parallel=False).smoothed
    scale = np.sqrt(plain.curvature_variance)
    truncated = stats.truncnorm(
        -plain.curvature_mean / scale, np.inf, loc=plain.curvature_mean, scale=scale
    )
    # scipy's variance is a difference of moments.
    np.testing.assert_allclose(got.curvature_mean, truncated.mean(), rtol=1e-9)
    np.testing.assert_allclose(got.curvature_variance, truncated.var(), rtol=1e-6)
    slope = plain.gradient_curvature_covariance / plain.curvature_variance
    close(
        got.gradient_mean,
        plain.gradient_mean + slope * (got.curvature_mean - plain.curvature_mean),
    )
    assert np.min(plain.curvature_mean) < 0 < np.min(got.curvature_mean)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("scale", "degrees", "discount"), [(SCALE, DEGREES, 0.9), (0.0, 0.0, 1.0), (0.0, 0.0, 0.8)]
)
def test_noise_that_drifts_or_is_diffuse_in_parallel_is_sequential(
    scale: float, degrees: float, discount: float
):
    belief = UnknownNoise(OrnsteinUhlenbeck(**OU), scale, degrees, discount)
    recording = arrays(CASES["ornstein-uhlenbeck"].recording)
    with jax.disable_jit():
        got, want = (
            filters.filter_recording(belief, *recording, parallel=way) for way in (True, False)
        )
        if discount == 1:
            both = (
                filters.smooth_recording(belief, *recording, parallel=way) for way in (True, False)
            )
            jax.tree.map(close, *both)
    jax.tree.map(close, got, want)
    # Two readings or fewer leave a noise without a mean.
    seen = np.isfinite(recording.gradient["a"]).astype(float)
    left = np.apply_along_axis(oracles.discounted, 0, seen, discount, degrees)
    np.testing.assert_array_equal(np.isinf(want[0].gradient_variance["a"]), left <= 2)
    assert np.any(left > 2)


# --- paths --------------------------------------------------------------------------------------

NUM_SAMPLES = 4000
STEADY = UnknownNoise(OrnsteinUhlenbeck(**OU), 0.5, 20.0)
PATHS = {
    "secant": first_leaf(CASES["secant, two sensors"]),
    "secant, constant": CASES["secant, constant"],
    "optimum": CASES["optimum"],
    "unknown noise": CASES["ornstein-uhlenbeck"]._replace(belief=STEADY),
}


def draw_paths(belief: Any, recording: Recording, num_samples: int, seed: int = 0) -> Any:
    key = jax.random.key(seed)
    return filters.sample_paths(belief, *recording, key=key, num_samples=num_samples)


def errors_of_moments(draws: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Distances in standard errors of the mean [n] and covariance [n, n] of draws [sample, n]."""
    products = (draws - mean)[:, :, None] * (draws - mean)[:, None, :]
    errors = []
    for x, want in ((draws, mean), (products, covariance)):
        scale = x.std(0) / np.sqrt(len(x))
        # What does not vary at all must be right: up to float64 round-off.
        errors.append((np.abs(x.mean(0) - want) / np.maximum(scale, 1e-9)).ravel())
    return np.concatenate(errors)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", PATHS)
def test_paths_have_the_moments_of_the_smoother_at_and_between_all_steps(name: str):
    case = PATHS[name]
    paths = jit(lambda recording: draw_paths(case.belief, recording, NUM_SAMPLES))(
        arrays(case.recording)
    )
    gradients, joints = jax.tree.leaves(paths.gradient), exact(case)
    curvatures = jax.tree.leaves(paths.curvature) or [None] * len(gradients)
    assert (paths.curvature is None) == ("secant" not in name)
    for g, h, joint in zip(gradients, curvatures, joints, strict=True):
        assert g.shape == (NUM_SAMPLES, T, *ENTRY) and g.dtype == np.float64
        for index in np.ndindex(*ENTRY):
            draws = np.stack([x[..., *index] for x in (g, h) if x is not None], 2)
            k = draws.shape[2]
            mean = joint.smoothed_mean[:, :k, *index].ravel()
            covariance = joint.smoothed_covariance[:, :k, :, :k, *index].reshape(T * k, T * k)
            if name == "unknown noise":
                n = 20 + joint.num_readings[index]
                covariance = covariance * (20 * 0.5 + joint.surprise[index]) / (n - 2)
            errors = errors_of_moments(draws.reshape(-1, T * k), mean, covariance)
            # At most 78 different comparisons an entry: a chance of 2 % a case.
            assert np.max(errors) < 4
    # One draw says nothing about that of another entry or leaf.
    last = np.concatenate([g[:, -1].reshape(NUM_SAMPLES, -1) for g in gradients], 1)
    correlation = np.corrcoef(last, rowvar=False) - np.eye(last.shape[1])
    assert np.max(np.abs(correlation)) < 4 / np.sqrt(NUM_SAMPLES)


@pytest.mark.usefixtures("x64")
def test_paths_under_unknown_noise_are_student_over_all_steps_together():
    r"""One unit is shared by all steps, so that a path is a multivariate Student t.

    With $n$ readings and $d$ steps, the squared distance of a path from the smoothed mean, in the
    covariance in units of $s^2 = (\nu_0 s_0^2 + \text{surprise}) / (\nu_0 + n)$ and divided
    by $d$, has the law $F(d, \nu_0 + n)$. Normal paths would have a chi-squared one.
    """
    y = np.array([0.6, -1.1, np.nan, 0.4, 1.5])
    hyper = {"autocorrelation": 0.8, "process_variance": 0.3, "noise_variance": 0.5}
    joint = oracles.joint(oracles.ornstein_uhlenbeck_model(y, **hyper))
    degrees = DEGREES + joint.num_readings
    unit = (DEGREES * SCALE + joint.surprise) / degrees
    belief = UnknownNoise(OrnsteinUhlenbeck(**hyper), SCALE, DEGREES)
    recording = Recording(jnp.asarray(y))
    drawn = jit(lambda recording: draw_paths(belief, recording, 20_000))(recording)
    away = np.asarray(drawn.gradient, np.float64) - joint.smoothed_mean[:, 0]
    covariance = joint.smoothed_covariance[:, 0, :, 0]
    distance = np.einsum("ns,sn->n", away, np.linalg.solve(covariance, away.T))
    got = distance / (len(y) * unit)
    # One degree of freedom more, or a unit that is not drawn: p below 1e-6.
    assert stats.kstest(got, stats.f(len(y), degrees).cdf).pvalue > 1e-3


@pytest.mark.usefixtures("x64")
def test_paths_follow_the_key():
    case = first_leaf(CASES["optimum"])
    run = jit(
        lambda key: (
            filters.sample_paths(
                case.belief, *arrays(case.recording), key=key, num_samples=3
            ).gradient
        )
    )
    one, again, other = (np.asarray(run(jax.random.key(seed))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.all(one != other)
    assert np.all(one[0] != one[1])


# --- NUTS ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("x64", "rank_promotion")
@pytest.mark.parametrize("name", ["secant", "secant, constant", "optimum"])
def test_nuts_agrees_with_the_smoother(name: str):
    rng = np.random.default_rng(20)
    y = np.array([0.4, -0.3, np.nan, 1.2, 0.8, np.nan, 0.1, -0.6])
    moved, c = rng.normal(0, 0.8, 8), rng.normal(0, 1, 8)
    c[[0, 4]] = np.nan
    constant = SHARP | {"noise_variance": 0.3}
    model, case = {
        "secant": (Secant(**SMOOTH_SECANT), secant(SMOOTH_SECANT)),
        "secant, constant": (Secant(**constant), secant(constant)),
        "optimum": (
            Optimum(**OPTIMUM | {"noise_variance": 0.5}),
            optimum(OPTIMUM | {"noise_variance": 0.5}),
        ),
    }[name]
    second: Any = c if name == "secant" else None

    def program(y: Any) -> Any:
        return model.numpyro_model(y, moved, *([second] if name == "secant" else []))

    draws = oracles.nuts(program, jnp.asarray(y), seed=20, num_samples=3000)
    recording = Recording(*(None if x is None else jnp.asarray(x) for x in (y, moved, second)))
    smoothed = filters.smooth_recording(model, *recording)
    joint = case(y, moved, second)
    close(smoothed.gradient_mean, joint.smoothed_mean[:, 0])
    g = draws["gradient"]
    read = [(g, smoothed.gradient_mean, smoothed.gradient_variance)]
    if name == "secant":
        read.append((draws["curvature"], smoothed.curvature_mean, smoothed.curvature_variance))
    if name == "secant, constant":  # one number
        h = draws["curvature"][..., -1:]
        read.append((h, smoothed.curvature_mean[-1:], smoothed.curvature_variance[-1:]))
    # Four standard errors, by effective sample size, for at most 40 comparisons: 3e-3 by chance.
    for x, mean, variance in read:
        mean = np.asarray(mean)
        assert np.max(oracles.standard_errors(x, mean)) < 4
        assert np.max(oracles.standard_errors((x - mean) ** 2, np.asarray(variance))) < 4
    if name == "secant":
        product = (g - smoothed.gradient_mean) * (draws["curvature"] - smoothed.curvature_mean)
        want = np.asarray(smoothed.gradient_curvature_covariance)
        assert np.max(oracles.standard_errors(np.asarray(product), want)) < 4


# --- what does not fit --------------------------------------------------------------------------

WALK = Secant(0.3, 2.0, 1.5)
LEVEL_MODEL = LocalLevel(**LEVEL)
Y = jnp.asarray([1.0, jnp.nan, 2.0])


def test_there_is_nothing_to_look_back_on_without_noise():
    model = OrnsteinUhlenbeck(0.5, 1.0, 0.0)
    with pytest.raises(ValueError, match="without noise"):
        filters.smooth_recording(model, Y)


@pytest.mark.parametrize(
    ("name", "dtype"), [("secant, constant", jnp.float16), ("optimum", jnp.bfloat16)]
)
def test_half_precision_streams_are_believed_in_float32(name: str, dtype: Any):
    belief = CASES[name].belief
    # Steps of 1/3 as half precision has it; it does not have the sum of several.
    y = jnp.asarray([0.5, jnp.nan, -1.0, 0.25, 1.0, jnp.nan], dtype)
    half = Recording(y, jnp.full(6, 1 / 3, dtype))

    @jit
    def run(half: Recording) -> Any:
        single = jax.tree.map(lambda x: x.astype(jnp.float32), half)
        return [filters.smooth_recording(belief, *recording) for recording in (half, single)]

    got, want = run(half)
    assert {x.dtype for x in jax.tree.leaves(got)} == {jnp.dtype(jnp.float32)}
    # The same numbers, in the same precision.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(got))


def test_what_cannot_be_smoothed_says_why():
    for purpose, run in (
        ("smooth a recording", lambda b: filters.smooth_recording(b, Y)),
        ("smooth chunks", lambda b: next(filters.smooth_chunks(b, [Recording(Y)]))),
        ("sample paths", lambda b: draw_paths(b, Recording(Y), 1)),
        ("filter in parallel", lambda b: filters.filter_recording(b, Y, parallel=True)),
        ("filter in parallel", lambda b: filters.log_likelihood(b, Y, parallel=True)),
    ):
        for belief, name in (
            (beliefs.PrecisionWalk(0.9), "PrecisionWalk"),
            (LEVEL_MODEL.filter(), "Filter"),
            (beliefs.positive(beliefs.PrecisionWalk(0.9)), r"positive\(PrecisionWalk\)"),
        ):
            with pytest.raises(ValueError, match=f"Cannot {purpose} with {name}.*linear-Gaussian"):
                run(belief)


def test_what_has_no_joint_says_why():
    improper = LocalLevel(0.9, noise_variance=1.0)
    drifting = UnknownNoise(LEVEL_MODEL, 1.0, 3.0, discount=0.9)
    for run in (
        lambda b: filters.smooth_recording(b, Y),
        lambda b: draw_paths(b, Recording(Y), 1),
    ):
        with pytest.raises(ValueError, match="improper LocalLevel.*positive prior_sample_size"):
            run(improper)
        with pytest.raises(ValueError, match="noise_variance is unknown; give it"):
            run(LocalLevel(0.9, prior_sample_size=1.0))
        with pytest.raises(ValueError, match="noise that drifts .*no joint model"):
            run(drifting)
    with pytest.raises(ValueError, match="Cannot smooth chunks with UnknownNoise.*scaled"):
        next(filters.smooth_chunks(UnknownNoise(LEVEL_MODEL, 1.0, 3.0), [Recording(Y)]))
    with pytest.raises(ValueError, match="improper LocalLevel"):
        next(filters.smooth_chunks(improper, [Recording(Y)]))


def test_paths_of_what_only_has_moments_and_no_paths_are_refused():
    with pytest.raises(ValueError, match="read as positive.*sample from the belief inside"):
        draw_paths(beliefs.positive(WALK), Recording(Y, Y), 1)
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        draw_paths(LEVEL_MODEL, Recording(Y), 0)


@pytest.mark.parametrize(
    "run",
    [
        lambda *streams: filters.smooth_recording(WALK, *streams),
        lambda *streams: next(filters.smooth_chunks(WALK, [Recording(*streams)])),
        lambda *streams: draw_paths(WALK, Recording(*streams), 1),
    ],
    ids=["smooth", "chunks", "paths"],
)
def test_smoothing_checks_its_streams(run: Any):
    with pytest.raises(ValueError, match="Secant without displacement="):
        run(Y)
    with pytest.raises(ValueError, match="displacement must be recorded like the gradient"):
        run(Y, Y[:2])
    with pytest.raises(ValueError, match="no part of it reads a second sensor.*curvature_noise"):
        run(Y, Y, Y)
    with pytest.raises(ValueError, match="streams .* of one length of at least 1"):
        run(Y[0], Y[0])
