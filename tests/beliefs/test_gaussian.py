"""The factored algebra of small Gaussians is linear algebra, and stays positive in float32."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import stats

from beliefnav.beliefs import gaussian
from beliefnav.beliefs.gaussian import Conditional, Gaussian, Link
from tests import oracles

# A third of the time to compile what runs for a moment.
jit = functools.partial(
    jax.jit,
    compiler_options={"xla_backend_optimization_level": 0},
)

BATCH = 5
SIZES = [1, 2, 3, 4]
sizes = pytest.mark.parametrize("d", SIZES)

# Float64 round-off of solves with a condition number below 1e3.
TOLERANCE: Any = {"rtol": 1e-10, "atol": 1e-10}


def close(got: Any, want: Any) -> None:
    np.testing.assert_allclose(got, want, **TOLERANCE)


# --- between structures of arrays [BATCH] and matrices [BATCH, d, d] ----------------------------


def random_covariance(rng: np.random.Generator, d: int) -> np.ndarray:
    root = rng.normal(size=(BATCH, d, d))
    return root @ root.swapaxes(1, 2) + 0.1 * np.eye(d)


def split(array: np.ndarray) -> tuple[Any, ...]:
    return tuple(jnp.asarray(x) for x in np.moveaxis(array, 1, 0))


def factored(mean: np.ndarray, covariance: np.ndarray) -> Gaussian:
    root = np.linalg.cholesky(covariance)
    scale = np.diagonal(root, axis1=1, axis2=2)
    factor = root / scale[:, None, :]
    d = mean.shape[1]
    below = tuple(jnp.asarray(factor[:, i, j]) for i in range(d) for j in range(i))
    return Gaussian(split(mean), below, split(scale**2))


def random_gaussian(rng: np.random.Generator, d: int) -> tuple[Gaussian, np.ndarray, np.ndarray]:
    mean, covariance = rng.normal(size=(BATCH, d)), random_covariance(rng, d)
    return factored(mean, covariance), mean, covariance


def known_and_random(rng: np.random.Generator, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Entries [BATCH, *shape]; some are the Python numbers 0 and 1 in every problem of the batch.

    The second is an object array [*shape] of what the library is given.
    """
    values = rng.normal(size=(BATCH, *shape))
    given = np.empty(shape, object)
    for index in np.ndindex(*shape):
        kind = rng.integers(4)
        if kind < 2:
            values[:, *index] = kind
            given[index] = int(kind)
        else:
            given[index] = jnp.asarray(values[:, *index])
    return values, given


def random_step(
    rng: np.random.Generator, d: int
) -> tuple[Conditional, np.ndarray, np.ndarray, np.ndarray]:
    matrix, given = known_and_random(rng, d, d)
    noise, offset, covariance = random_gaussian(rng, d)
    return Conditional(tuple(map(tuple, given)), noise), matrix, offset, covariance


def dense(entries: Any) -> np.ndarray:
    """Nested tuples of arrays and numbers as [BATCH, ...]."""
    if isinstance(entries, tuple):
        return np.stack([dense(x) for x in entries], 1)
    return np.broadcast_to(np.asarray(entries, np.float64), (BATCH,))


def moments(belief: Gaussian) -> tuple[np.ndarray, np.ndarray]:
    d = range(len(belief.mean))
    return dense(belief.mean), dense(tuple(tuple(belief.covariance(i, j) for j in d) for i in d))


def assert_moments(belief: Gaussian, mean: np.ndarray, covariance: np.ndarray) -> None:
    got = moments(belief)
    close(got[0], mean)
    close(got[1], covariance)
    assert np.all(dense(belief.variances) > 0)


def apply(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    return np.einsum("bij,bj->bi", matrix, vector)


def through(matrix: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    return matrix @ covariance @ matrix.swapaxes(1, 2)


# --- one step -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@sizes
def test_independent_variables_have_a_diagonal_covariance(d: int):
    rng = np.random.default_rng(d)
    mean, variances = rng.normal(size=(BATCH, d)), rng.exponential(size=(BATCH, d))
    belief = gaussian.independent(split(mean), split(variances))
    assert_moments(belief, mean, np.einsum("bi,ij->bij", variances, np.eye(d)))


@pytest.mark.usefixtures("x64")
@sizes
def test_predict_and_reverse_are_bayes_rule_of_the_joint(d: int):
    rng = np.random.default_rng(10 + d)
    belief, mean, covariance = random_gaussian(rng, d)
    step, matrix, offset, noise = random_step(rng, d)
    after = apply(matrix, mean) + offset
    after_covariance = through(matrix, covariance) + noise
    assert_moments(gaussian.predict(belief, step), after, after_covariance)

    predicted, backward = gaussian.reverse(belief, step)
    assert_moments(predicted, after, after_covariance)
    shared = covariance @ matrix.swapaxes(1, 2)
    both = np.block([[covariance, shared], [shared.swapaxes(1, 2), after_covariance]])
    gain, rest = (np.stack(x) for x in zip(*(oracles.regression(c, d) for c in both), strict=True))
    close(dense(backward.matrix), gain)
    assert_moments(backward.noise, mean - apply(gain, after), rest)
    # And so the backward step leads back.
    assert_moments(gaussian.predict(predicted, backward), mean, covariance)


@pytest.mark.usefixtures("x64")
@sizes
@pytest.mark.parametrize("known", [True, False])
def test_condition_is_the_conditioned_joint(d: int, known: bool):
    rng = np.random.default_rng(20 + d)
    belief, mean, covariance = random_gaussian(rng, d)
    row, given = known_and_random(rng, d)
    if not known:
        given = split(row)
    value, noise = rng.normal(size=BATCH), rng.exponential(size=BATCH)
    posterior, reading = gaussian.condition(
        belief, tuple(given), jnp.asarray(value), jnp.asarray(noise)
    )
    shared = apply(covariance, row)
    variance = np.einsum("bi,bi->b", row, shared) + noise
    both = np.block([[covariance, shared[:, :, None]], [shared[:, None], variance[:, None, None]]])
    gain, rest = (np.stack(x) for x in zip(*(oracles.regression(c, d) for c in both), strict=True))
    innovation = value - np.einsum("bi,bi->b", row, mean)
    assert_moments(posterior, mean + gain[:, :, 0] * innovation[:, None], rest)
    close(reading.innovation, innovation)
    close(reading.variance, variance)
    close(dense(reading.gain), gain[:, :, 0])
    close(reading.log_density(), stats.norm.logpdf(innovation, scale=np.sqrt(variance)))


@pytest.mark.usefixtures("x64")
@sizes
@pytest.mark.parametrize("zero", [0, np.zeros(BATCH)], ids=["number", "array"])
def test_a_row_of_zeros_says_nothing(d: int, zero: Any):
    belief, mean, covariance = random_gaussian(np.random.default_rng(30 + d), d)
    posterior, reading = gaussian.condition(belief, (zero,) * d, np.full(BATCH, 9.0), 0.3)
    np.testing.assert_array_equal(dense(posterior.mean), mean)
    # One rounding of a product and its quotient.
    np.testing.assert_allclose(moments(posterior)[1], covariance, rtol=1e-14, atol=1e-14)
    np.testing.assert_array_equal(dense(reading.gain), 0)
    close(np.broadcast_to(reading.variance, BATCH), 0.3)


@pytest.mark.usefixtures("x64")
@sizes
def test_draw_is_linear_in_its_noise_and_has_the_covariance(d: int):
    belief, mean, covariance = random_gaussian(np.random.default_rng(40 + d), d)
    zero, one = jnp.zeros(BATCH), jnp.ones(BATCH)
    close(dense(gaussian.draw((zero,) * d, belief)), mean)
    columns = [
        dense(gaussian.draw(tuple(one if i == j else zero for i in range(d)), belief)) - mean
        for j in range(d)
    ]
    root = np.stack(columns, 2)
    close(root @ root.swapaxes(1, 2), covariance)
    # Linear: the draw from all of them is their sum.
    close(dense(gaussian.draw((one,) * d, belief)), mean + root.sum(2))


@pytest.mark.usefixtures("x64")
def test_affine_is_the_step_from_a_given_place():
    rng = np.random.default_rng(50)
    step, matrix, offset, noise = random_step(rng, 3)
    x = rng.normal(size=(BATCH, 3))
    assert_moments(gaussian.affine(step, split(x)), apply(matrix, x) + offset, noise)


# --- several steps ------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@sizes
def test_compose_integrates_out_the_middle_and_is_associative(d: int):
    rng = np.random.default_rng(60 + d)
    (one, *a), (two, *b), (three, *_) = (random_step(rng, d) for _ in range(3))
    both = gaussian.compose(one, two)
    close(dense(both.matrix), b[0] @ a[0])
    assert_moments(both.noise, apply(b[0], a[1]) + b[1], through(b[0], a[2]) + b[2])

    left = gaussian.compose(both, three)
    right = gaussian.compose(one, gaussian.compose(two, three))
    close(dense(left.matrix), dense(right.matrix))
    assert_moments(left.noise, *moments(right.noise))


def random_link(rng: np.random.Generator, d: int) -> tuple[Link, list[Any], list[Any]]:
    """A link of a step and two readings; what it is made of as matrices, for the brute force."""
    step, matrix, offset, noise = random_step(rng, d)
    rows, values, variances, readings = [], [], [], []
    for _ in range(2):
        row, given = known_and_random(rng, d)
        value, variance = rng.normal(size=BATCH), rng.exponential(size=BATCH) + 0.1
        readings.append((tuple(given), jnp.asarray(value), jnp.asarray(variance)))
        rows.append(row)
        values.append(value)
        variances.append(variance)
    made = [np.stack(x, 1) for x in (rows, values, variances)]
    return gaussian.link(step, readings), [matrix, offset, noise], made


def assert_link(link: Link, steps: list[Any], readings: list[Any]) -> None:
    """The link is the joint of the last state and all readings, given the state at the start."""
    d = steps[0][0].shape[1]
    for k in range(BATCH):
        # State and readings so far are slope x + start + noise of some covariance.
        slope, start, covariance = np.eye(d), np.zeros(d), np.zeros((d, d))
        for (matrix, offset, noise), (rows, _, variances) in zip(steps, readings, strict=True):
            n = len(start) - d
            step = np.block([[matrix[k], np.zeros((d, n))], [np.zeros((n, d)), np.eye(n)]])
            slope, start, covariance = step @ slope, step @ start, step @ covariance @ step.T
            start[:d] += offset[k]
            covariance[:d, :d] += noise[k]
            see = np.eye(d + n)
            see = np.concatenate([see, np.concatenate([rows[k], np.zeros((len(rows[k]), n))], 1)])
            slope, start, covariance = see @ slope, see @ start, see @ covariance @ see.T
            m = len(rows[k])
            covariance[-m:, -m:] += np.diag(variances[k])
        values = np.concatenate([r[1][k] for r in readings])
        gain, rest = oracles.regression(covariance, d)
        innovation = values - start[d:]
        close(dense(link.step.matrix)[k], slope[:d] - gain @ slope[d:])
        mean, noise = moments(link.step.noise)
        close(mean[k], start[:d] + gain @ innovation)
        close(noise[k], rest)
        h, w, z = (dense(x)[k] for x in link.potential)
        weight = slope[d:].T @ np.linalg.inv(covariance[d:, d:])
        close(h.T @ np.diag(w) @ h, weight @ slope[d:])
        close(h.T @ z, weight @ innovation)


@pytest.mark.usefixtures("x64")
@sizes
def test_link_and_chain_are_the_joint_of_state_and_readings_given_the_start(d: int):
    rng = np.random.default_rng(70 + d)
    (one, a, seen), (two, b, seen_next) = (random_link(rng, d) for _ in range(2))
    assert_link(one, [a], [seen])
    assert len(one.potential.rows) == d
    assert_link(gaussian.chain(one, two), [a, b], [seen, seen_next])


@pytest.mark.usefixtures("x64")
@sizes
def test_chain_is_associative(d: int):
    rng = np.random.default_rng(80 + d)
    one, two, three = (random_link(rng, d)[0] for _ in range(3))
    left = gaussian.chain(gaussian.chain(one, two), three)
    right = gaussian.chain(one, gaussian.chain(two, three))
    close(dense(left.step.matrix), dense(right.step.matrix))
    assert_moments(left.step.noise, *moments(right.step.noise))
    (h, w, z), (h_, w_, z_) = ([dense(x) for x in link.potential] for link in (left, right))
    close(np.einsum("bki,bk,bkj->bij", h, w, h), np.einsum("bki,bk,bkj->bij", h_, w_, h_))
    close(np.einsum("bki,bk->bi", h, z), np.einsum("bki,bk->bi", h_, z_))


# --- the edges ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("zero", [0.0, np.zeros(BATCH)], ids=["number", "array"])
def test_certainty_stays_certain_and_is_no_nan(d: int, zero: Any):
    rng = np.random.default_rng(90 + d)
    mean, value = split(rng.normal(size=(BATCH, d))), jnp.asarray(rng.normal(size=BATCH))
    nothing = np.zeros((BATCH, d, d))
    certain = gaussian.independent(mean, (zero,) * d)
    matrix, given = known_and_random(rng, d, d)
    step = Conditional(tuple(map(tuple, given)), certain)
    after = apply(matrix, dense(mean)) + dense(mean)

    posterior, reading = gaussian.condition(certain, (1.0,) * d, value, 0.5)
    predicted, backward = gaussian.reverse(certain, step)
    composed = gaussian.compose(step, step)
    link = gaussian.link(step, [((1.0,) * d, value, 0.5)])
    both = gaussian.chain(link, link)
    noises = backward.noise, composed.noise, link.step.noise, both.step.noise
    for belief in (posterior, gaussian.predict(certain, step), predicted, *noises):
        np.testing.assert_array_equal(moments(belief)[1], nothing)
    close(moments(posterior)[0], dense(mean))
    close(moments(predicted)[0], after)
    close(moments(backward.noise)[0], dense(mean))
    close(moments(composed.noise)[0], apply(matrix, dense(mean)) + dense(mean))
    close(moments(both.step.noise)[0], after)
    close(dense(gaussian.draw((value,) * d, certain)), dense(mean))
    np.testing.assert_array_equal(np.broadcast_to(reading.variance, BATCH), 0.5)
    for x in jax.tree.leaves((backward, both)):
        assert np.all(np.isfinite(x))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("certain", [0, 1, 2])
def test_one_variable_that_is_certain(certain: int):
    """Of three: nothing is learned of it, and the rest obeys the same rules of matrices."""
    rng = np.random.default_rng(100)
    variances = rng.exponential(size=(BATCH, 3)) + 0.1
    variances[:, certain] = 0
    mean, covariance = rng.normal(size=(BATCH, 3)), np.einsum("bi,ij->bij", variances, np.eye(3))
    belief = gaussian.independent(split(mean), split(variances))
    matrix, given = known_and_random(rng, 3, 3)
    # Without noise, x' = A x has a covariance of rank 2 at most.
    step = Conditional(tuple(map(tuple, given)), gaussian.independent((0,) * 3, (0,) * 3))
    predicted, backward = gaussian.reverse(belief, step)
    close(moments(predicted)[1], through(matrix, covariance))
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(backward))
    assert np.all(dense(backward.noise.variances) >= 0)
    # Whatever the backward step is where x' is degenerate, it leads back.
    mean_, covariance_ = moments(gaussian.predict(predicted, backward))
    close(mean_, mean)
    close(covariance_, covariance)
    row = rng.normal(size=(BATCH, 3))
    posterior, reading = gaussian.condition(belief, split(row), 1.0, jnp.full(BATCH, 0.2))
    shared = apply(covariance, row)
    variance = np.einsum("bi,bi->b", row, shared) + 0.2
    want = covariance - np.einsum("bi,bj,b->bij", shared, shared, 1 / variance)
    close(moments(posterior)[1], want)
    np.testing.assert_array_equal(dense(reading.gain)[:, certain], 0)


def test_means_and_variances_must_match():
    with pytest.raises(ValueError, match="independent: 2 means, but 1 variances"):
        gaussian.independent((0.0, 0.0), (1.0,))


# --- float32 ------------------------------------------------------------------------------------

Pair = tuple[Any, ...]  # a Gaussian over gradient and curvature, or its covariance, as arrays


def start(shape: tuple[int, ...], dtype: Any) -> Gaussian:
    zero, prior = jnp.zeros(shape, dtype), jnp.ones(shape, dtype)
    return Gaussian((zero, zero), (zero,), (prior, prior))


def step_and_read(belief: Gaussian, moved: Any, q: Any, noise: Any) -> Gaussian:
    """A step of the secant model and a reading of the gradient."""
    step = Conditional(((1, moved), (0, 1)), gaussian.independent((0, 0), (0, q)))
    belief = gaussian.predict(belief, step)
    return gaussian.condition(belief, (1, 0), jnp.zeros_like(moved), noise)[0]


@pytest.mark.parametrize(
    ("num_steps", "rtol"), [(10_000, 5e-3), pytest.param(1_000_000, 0.04, marks=pytest.mark.slow)]
)
def test_variances_stay_positive_for_any_number_of_sharp_readings(num_steps: int, rtol: float):
    """R from 1e-8 to 1e-2 of the priors; the curvature stays, or walks."""
    noise = np.repeat([1e-8, 1e-6, 1e-4, 1e-2], 2)
    walk = np.tile([1e-6, 1e-2], 4)
    moves = np.random.default_rng(110).normal(0, 0.1, (num_steps, 8)).astype(np.float32)

    def run(moves: jax.Array, dtype: Any) -> Any:
        r, q = jnp.asarray(noise, dtype), jnp.asarray(walk, dtype)

        def step(carry: Any, moved: jax.Array) -> Any:
            stays, walks, least = carry
            moved = moved.astype(dtype)
            stays, walks = step_and_read(stays, moved, 0, r), step_and_read(walks, moved, q, r)
            for variance in stays.variances + walks.variances:
                least = jnp.minimum(least, variance)
            return (stays, walks, least), None

        first = start((8,), dtype), start((8,), dtype), jnp.ones(8, dtype)
        (stays, walks, least), _ = lax.scan(step, first, moves)
        covariance = [(x.covariance(0, 0), x.covariance(1, 1)) for x in (stays, walks)]
        return *covariance, least, (stays, walks)

    single = jax.jit(lambda x: run(x, jnp.float32))(moves)
    with jax.enable_x64(True):
        double = jax.jit(lambda x: run(x, jnp.float64))(moves)
    assert {x.dtype for x in jax.tree.leaves(single)} == {jnp.dtype(jnp.float32)}
    assert np.all(single[2] > 0)  # not if any was ever NaN
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(single))
    # With a walk, what was rounded is forgotten: 1e-6 measured.
    np.testing.assert_allclose(single[1], double[1], rtol=1e-5)
    # Without, every step rounds a ratio close to 1 that all later ones are multiplied with: at most
    # eps/2 = 6e-8 each, 6 % after a million if all went the same way; 1.3 % measured.
    np.testing.assert_allclose(single[0], double[0], rtol=rtol)


def plain(p: Pair, noise: np.float32) -> Pair:
    """P - K K' S."""
    gg, gh, hh = p
    s = gg + noise
    return gg - gg / s * gg, gh - gg / s * gh, hh - gh / s * gh


def joseph(p: Pair, noise: np.float32) -> Pair:
    """(1 - K h') P (1 - K h')' + K R K'."""
    gg, gh, hh = p
    k_g, k_h = gg / (gg + noise), gh / (gg + noise)
    left = 1 - k_g
    return (
        left * gg * left + k_g * noise * k_g,
        (gh - k_h * gg) * left + k_h * noise * k_g,
        hh - k_h * gh - (gh - k_h * gg) * k_h + k_h * noise * k_h,
    )


@functools.cache
def sharp_streams(x64: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Moves [step, stream], and variances of gradient and curvature after them by the library."""
    moves = np.random.default_rng(111).normal(0, 1, (5, 200)).astype(np.float32)

    def run(moves: jax.Array) -> Any:
        belief = start((200,), moves.dtype)
        for moved in moves:
            belief = step_and_read(belief, moved, 0, jnp.asarray(np.float32(1e-12), moves.dtype))
        return belief.covariance(0, 0), belief.covariance(1, 1)

    with jax.enable_x64(x64):
        gradient, curvature = jit(run)(jnp.asarray(moves, float))
        assert gradient.dtype == curvature.dtype == jnp.result_type(float)
    return moves, np.asarray(gradient), np.asarray(curvature)


@pytest.mark.parametrize("update", [plain, joseph])
def test_covariances_as_they_are_would_not_do(update: Any):
    """On streams of few readings, a millionth of the prior's deviation sharp."""
    noise = np.float32(1e-12)
    moves, *exact = sharp_streams(x64=True)
    # Float32 round-off of a few steps.
    np.testing.assert_allclose(sharp_streams(x64=False)[1:], exact, rtol=1e-5)

    p: Pair = np.ones(200, np.float32), np.zeros(200, np.float32), np.ones(200, np.float32)
    for moved in moves:
        gg, gh, hh = p
        p = update((gg + 2 * moved * gh + moved * moved * hh, gh + moved * hh, hh), noise)
    gg, gh, hh = (x.astype(np.float64) for x in p)
    assert {x.dtype for x in p} == {np.dtype(np.float32)}
    indefinite = (gg < 0) | (hh < 0) | (gg * hh < gh**2)
    wrong = np.any(np.abs(np.stack([gg, hh]) / np.stack(exact) - 1) > 1, 0)
    assert np.mean(indefinite | wrong) > 0.1
    assert np.any(indefinite)


@pytest.mark.parametrize("exponent", [-80, 80])
def test_the_unit_of_the_variances_changes_no_digit(exponent: int):
    """Powers of two multiply exactly, so that gradients of 1e-12 are filtered like those of 1."""
    unit = np.float32(2.0**exponent)

    @jit
    def run(unit: Any) -> Gaussian:
        prior = jnp.full(3, unit)
        belief = start((3,), jnp.float32)._replace(variances=(prior, prior))
        for moved in jnp.asarray([[0.3, -1.0, 0.0], [0.5, 0.1, 2.0], [-0.4, 0.7, 0.2]]):
            belief = step_and_read(belief, moved, 0.01 * unit, 1e-4 * unit)
        return belief

    one, scaled = run(np.float32(1)), run(unit)
    np.testing.assert_array_equal(scaled.factor, one.factor)
    np.testing.assert_array_equal(np.stack(scaled.variances), unit * np.stack(one.variances))
