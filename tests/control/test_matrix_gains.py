"""The planning gain of matrices against the LQ policy, and functions of symmetric matrices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import linalg

from beliefnav import Objective, control, navigator
from beliefnav.beliefs import LocalLevel, Posterior, PrecisionWalk, independent
from beliefnav.control import planning_gain
from beliefnav.control.gains.matrix import (
    matrix_planning_gain,
    polar_factor,
    symmetric_function,
    symmetric_power,
)
from tests import oracles

Floats = NDArray[np.float64]

N = 4
NUMBERS: dict[str, Any] = {"rate": 0.7, "gain": 1.9, "discount": 1.3, "time_step": 0.8}
BOUND = -(1.3**2) / (4 * 0.7 * 1.9)
"""The lowest curvature that the objective bounds, at the metric 1."""


def positive(rng: np.random.Generator, n: int) -> Floats:
    x = rng.normal(size=(n, n))
    return x @ x.T / n + 0.3 * np.eye(n)


def random_problems(seed: int, size: int) -> tuple[Floats, Floats, Floats]:
    """Curvature V, metric G and gradient m; V goes down to 0.9 of the bound in some directions."""
    rng = np.random.default_rng(seed)
    metric = np.stack([positive(rng, N) for _ in range(size)])
    values = rng.uniform(0.9 * BOUND, 2.0, (size, N))
    rotations = np.linalg.qr(rng.normal(size=(size, N, N)))[0]
    root = np.linalg.cholesky(metric) @ rotations
    return (
        np.einsum("bik,bk,bjk->bij", root, values, root),
        metric,
        rng.normal(size=(size, N)),
    )


def gains(curvature: Any, metric: Any, **changes: Any) -> Any:
    def one(v: Any, g: Any) -> Any:
        return matrix_planning_gain(v, metric=g, **(NUMBERS | changes))

    return jax.jit(jax.vmap(one))(curvature, metric)


# --- the planning gain --------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("exact_hold", [False, True])
def test_step_is_that_of_the_stationary_policy(exact_hold: bool):
    """Its velocity times the time step, or its path for that time by a matrix exponential."""
    curvature, metric, gradient = random_problems(seed=0, size=40)
    assert np.sum(np.linalg.eigvalsh(curvature) < 0) > 10
    got = gains(curvature, metric, exact_hold=exact_hold)
    assert not np.any(got.clipped)
    np.testing.assert_allclose(got.gain, got.gain.swapaxes(1, 2), atol=1e-13)
    zero = np.zeros(N)
    for v, g, m, phi in zip(curvature, metric, gradient, got.gain, strict=True):
        policy = oracles.lq_solution(v, zero, m, g, 0 * v, zero, 0.7, 1.9, 1.3)
        want = 0.8 * policy.offset
        if exact_hold:
            generator = np.block([[policy.closed_loop, policy.offset[:, None]], [np.zeros(N + 1)]])
            want = linalg.expm(0.8 * generator)[:N, N]
        # The Riccati solver loses digits towards the bound, where its eigenvalues meet.
        np.testing.assert_allclose(-phi @ m, want, atol=1e-9 * (1 + np.abs(want).max()))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("exact_hold", [False, True])
def test_diagonal_problems_are_scalar_ones(exact_hold: bool):
    rng = np.random.default_rng(1)
    metric = np.exp(rng.uniform(-1, 1, (40, N)))
    curvature = metric * rng.uniform(2 * BOUND, 2.0, (40, N))
    diagonal = np.vectorize(np.diag, signature="(n)->(n,n)")
    got = gains(diagonal(curvature), diagonal(metric), exact_hold=exact_hold)
    want = planning_gain(curvature, metric=metric, exact_hold=exact_hold, **NUMBERS)
    np.testing.assert_allclose(got.gain, diagonal(np.asarray(want.gain)), rtol=1e-12, atol=1e-14)
    # Directions come by increasing curvature over metric.
    np.testing.assert_array_equal(got.clipped, np.sort(want.clipped, axis=1)[:, ::-1])
    assert 10 < np.sum(got.clipped) < 100


@pytest.mark.usefixtures("x64")
def test_saddles_too_steep_are_clipped_by_direction():
    """Two directions of four, in a metric and a basis of no relation to them."""
    values = np.array([3 * BOUND, 1.01 * BOUND, 0.9 * BOUND, 1.0])
    rng = np.random.default_rng(2)
    metric = positive(rng, N)
    root = np.linalg.cholesky(metric) @ np.linalg.qr(rng.normal(size=(N, N)))[0]
    curvature = np.repeat((root * values @ root.T)[None], 40, 0)
    metrics = np.repeat(metric[None], 40, 0)
    got = gains(curvature, metrics, exact_hold=False, margin=0.05)
    np.testing.assert_array_equal(got.clipped, np.tile([True, True, False, False], (40, 1)))
    bounded = np.maximum(values, 0.95 * BOUND)
    inverse = np.linalg.inv(root)
    scalar = np.asarray(planning_gain(bounded, margin=0.0, **NUMBERS).gain)
    np.testing.assert_allclose(got.gain[0], inverse.T * scalar @ inverse, atol=1e-11)


@pytest.mark.usefixtures("x64")
def test_limits_are_newton_and_the_natural_gradient():
    rng = np.random.default_rng(3)
    curvature = np.stack([positive(rng, N) for _ in range(40)])
    metric = np.stack([positive(rng, N) for _ in range(40)])
    # Held for e^{-rho dt} < 1e-16.
    held = gains(curvature, metric, exact_hold=True, time_step=1e4)
    np.testing.assert_allclose(held.gain, np.linalg.inv(curvature), rtol=1e-10, atol=1e-12)
    flat = gains(0 * curvature, metric, exact_hold=False)
    np.testing.assert_allclose(
        flat.gain, 0.7 * 1.9 * 0.8 / 1.3 * np.linalg.inv(metric), rtol=1e-11, atol=1e-13
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("exact_hold", [False, True])
def test_step_does_not_depend_on_the_coordinates(exact_hold: bool):
    r"""$\theta = B u$: V and G become $B^\top V B$ and $B^\top G B$, and the step $B^{-1}$ it."""
    curvature, metric, _ = random_problems(seed=4, size=40)
    b = np.random.default_rng(5).normal(size=(40, N, N))
    after = b.swapaxes(1, 2)
    transformed = gains(after @ curvature @ b, after @ metric @ b, exact_hold=exact_hold).gain
    want = gains(curvature, metric, exact_hold=exact_hold).gain
    back = b @ np.asarray(transformed) @ after
    error = np.abs(back - want).max((1, 2)) / np.abs(want).max((1, 2))
    # Roundings times the square of the condition of B.
    assert np.all(error < 1e-13 * np.linalg.cond(b) ** 2)


@pytest.mark.usefixtures("x64")
def test_metric_that_is_not_positive_gives_nan_and_the_default_is_the_identity():
    curvature, metric, _ = random_problems(seed=6, size=40)
    identity = np.broadcast_to(np.eye(N), metric.shape)
    metric = np.concatenate([-metric[:1], identity[1:]])
    got = gains(curvature, metric, exact_hold=False).gain
    assert np.all(np.isnan(got[0]))
    default = jax.jit(lambda v: matrix_planning_gain(v, **NUMBERS).gain)(curvature[1])
    np.testing.assert_allclose(default, got[1], rtol=1e-12, atol=1e-14)


def test_misfits_are_refused_and_named():
    with pytest.raises(ValueError, match=r"matrix_planning_gain: curvature must be \[n, n\]"):
        matrix_planning_gain(jnp.ones((2, 3)), **NUMBERS)
    with pytest.raises(ValueError, match=r"metric must have shape \(2, 2\).*got \(3, 3\)"):
        matrix_planning_gain(jnp.eye(2), metric=jnp.eye(3), **NUMBERS)
    with pytest.raises(ValueError, match="discount must be"):
        matrix_planning_gain(jnp.eye(2), rate=1.0, gain=1.0, discount=-1.0)


# --- functions of matrices ----------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_functions_are_those_of_scipy():
    s = positive(np.random.default_rng(7), 5)
    skew = np.triu(np.ones((5, 5)), 1)
    want = {jnp.exp: linalg.expm(s), jnp.sqrt: linalg.sqrtm(s), jnp.sin: linalg.funm(s, np.sin)}
    for function, matrix in want.items():
        got = symmetric_function(function, s + skew - skew.T)  # only the symmetric part counts
        np.testing.assert_allclose(got, matrix, rtol=1e-11, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("gap", [0.0, 1e-12, 1e-6, 1e-3])
def test_derivative_is_exact_where_eigenvalues_meet(gap: float):
    rng = np.random.default_rng(8)
    vectors = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    s = vectors * np.array([0.7, 0.7 + gap, 0.7 - gap, -0.4]) @ vectors.T
    direction = rng.normal(size=(4, 4))
    direction += direction.T

    def function(x: Any) -> Any:
        return symmetric_function(jnp.exp, x)

    forward = jax.jvp(function, (s,), (direction,))[1]
    want = linalg.expm_frechet(s, direction, compute_expm=False)
    # The slopes' mean is off by the square of a gap of eps^(1/3), and the quotient by eps over it.
    np.testing.assert_allclose(forward, want, atol=1e-9)
    h = 1e-5
    differences = (linalg.expm(s + h * direction) - linalg.expm(s - h * direction)) / (2 * h)
    np.testing.assert_allclose(forward, differences, atol=1e-7)
    cotangent = rng.normal(size=(4, 4))
    backward = jax.vjp(function, jnp.asarray(s))[1](jnp.asarray(cotangent))[0]
    np.testing.assert_allclose(np.sum(backward * direction), np.sum(cotangent * want), atol=1e-8)


@pytest.mark.usefixtures("x64")
def test_second_derivative_away_from_repeated_eigenvalues():
    s, direction = np.diag([0.3, 1.0, 2.0]), np.array([[0.0, 1, 2], [1, 3, -1], [2, -1, 0]])

    def slope(t: Any) -> Any:
        return jax.jvp(
            lambda x: symmetric_function(jnp.exp, x), (s + t * direction,), (direction,)
        )[1]

    got = jax.jvp(slope, (0.0,), (1.0,))[1]
    h = 1e-4
    after, before = (
        np.asarray(linalg.expm_frechet(s + t * direction, direction, compute_expm=False))
        for t in (h, -h)
    )
    # Central differences.
    np.testing.assert_allclose(got, (after - before) / (2 * h), rtol=1e-5)


# --- powers -------------------------------------------------------------------------------------

SPECTRA = {
    "distinct": [0.2, 0.9, 1.7, 4.0],
    "repeated": [0.5, 0.5, 0.5, 2.0],
    "zero": [0.0, 0.0, 0.6, 3.0],
    "repeated and zero": [0.0, 1.5, 1.5, 1.5],
    "negative": [-0.8, -0.1, 0.7, 2.0],
    "nothing": [0.0, 0.0, 0.0, 0.0],
}
POWERS = [-1.0, -0.5, -0.25, 0.5, 1.0, 2.0]


@jax.jit
@jax.vmap
def powers_of(s: Any, p: Any) -> Any:
    return symmetric_power(s, p), jax.jacobian(lambda x: symmetric_power(x, p))(s)


@pytest.mark.usefixtures("x64")
def test_powers_are_those_of_the_positive_eigenvalues():
    """By numpy, and the derivative in every direction is a number. The power may be traced."""
    vectors = np.linalg.qr(np.random.default_rng(11).normal(size=(4, 4)))[0]
    cases = [(np.array(values), p) for values in SPECTRA.values() for p in POWERS]
    matrices = jnp.asarray([vectors * values @ vectors.T for values, _ in cases])
    got, slopes = powers_of(matrices, jnp.asarray([p for _, p in cases]))
    for (values, p), matrix in zip(cases, got, strict=True):
        powers = np.where(values > 0, np.where(values > 0, values, 1) ** p, 0)
        # Roundings of eigenvalues down to 0.2, of the inverse squared.
        np.testing.assert_allclose(matrix, vectors * powers @ vectors.T, atol=1e-13)
    assert np.all(np.isfinite(slopes))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_derivatives_of_powers_are_exact_where_the_rank_stays(rank: int):
    """Against central differences along A(t) A(t)^T, with eigenvalues that meet at t = 0."""
    rng = np.random.default_rng(rank)
    start = np.linalg.qr(rng.normal(size=(4, 4)))[0][:, :rank] * np.sqrt(0.7)
    direction = rng.normal(size=(4, rank))

    def reference(t: float, p: float) -> Floats:
        u, s, _ = np.linalg.svd(start + t * direction, full_matrices=False)
        return u * s ** (2 * p) @ u.T

    moved = start @ direction.T + direction @ start.T
    same = jnp.asarray(np.repeat((start @ start.T)[None], 36, 0))
    slopes = powers_of(same, jnp.asarray(6 * POWERS))[1][:6]
    h = 1e-5
    for p, slope in zip(POWERS, slopes, strict=True):
        want = (reference(h, p) - reference(-h, p)) / (2 * h)
        # h^2 f''' + eps f / h ~ 1e-9, for derivatives of up to 10.
        np.testing.assert_allclose(np.tensordot(slope, moved, 2), want, atol=1e-7)


def test_powers_in_single_precision_at_extreme_scales():
    vectors = np.linalg.qr(np.random.default_rng(12).normal(size=(3, 3)))[0]
    matrix = vectors * np.array([1.0, 2.0, 2.0]) @ vectors.T
    root = vectors / np.sqrt([1.0, 2.0, 2.0]) @ vectors.T
    power = jax.jit(lambda s: symmetric_power(s, -0.5))
    for scale in (1e-30, 1e-10, 1.0, 1e10, 1e30):
        got = power(jnp.asarray(scale * matrix, jnp.float32))
        # Eigenvalues are right to some eps of the largest.
        np.testing.assert_allclose(got * np.sqrt(scale), root, atol=1e-5)
    # What is out of range is no NaN.
    for matrix in (np.full((3, 3), 3e38), np.diag([3e38, 1.0, 1e-38]), np.zeros((3, 3))):
        assert np.all(np.isfinite(power(jnp.asarray(matrix, jnp.float32))))
    assert symmetric_power(jnp.zeros((0, 0)), -0.5).shape == (0, 0)
    assert jax.eval_shape(power, jnp.eye(3, dtype=jnp.bfloat16)).dtype == jnp.float32


# --- the polar factor ---------------------------------------------------------------------------


def with_singular_values(rows: int, columns: int, values: list[float], seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    u = np.linalg.qr(rng.normal(size=(rows, rows)))[0][:, : len(values)]
    v = np.linalg.qr(rng.normal(size=(columns, columns)))[0][:, : len(values)]
    return u * np.array(values) @ v.T


def reference_polar(m: Floats, rank: int) -> Floats:
    u, _, vt = np.linalg.svd(m, full_matrices=False)
    return u[:, :rank] @ vt[:rank]


SHAPES = {
    "square": (3, 3, [[0.4, 1.0, 2.5], [1.3, 1.3, 1.3], [0.7, 2.0], [0.7]]),
    "tall": (4, 2, [[0.4, 2.5], [0.8, 0.8], [0.7]]),
    "wide": (2, 4, [[0.4, 2.5], [0.8, 0.8], [0.7]]),
    "column": (4, 1, [[2.0]]),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("shape", SHAPES)
def test_polar_factor_and_its_derivatives(shape: str):
    """Against numpy's SVD, and differences of it along matrices of the same rank.

    Singular values are distinct, repeated, and fewer than there could be.
    """
    rows, columns, spectra = SHAPES[shape]
    rng = np.random.default_rng(14)
    cotangent = rng.normal(size=(rows, columns))

    @jax.jit
    def derivatives(m: Any, direction: Any) -> Any:
        value, forward = jax.jvp(polar_factor, (m,), (direction,))
        return value, forward, jax.vjp(polar_factor, m)[1](jnp.asarray(cotangent))[0]

    for values in spectra:
        m, rank = with_singular_values(rows, columns, values, seed=13), len(values)
        # M(t) = (1 + t X) M (1 + t Y) has the same rank; where it is full, any direction keeps it.
        x, y = rng.normal(size=(rows, rows)), rng.normal(size=(columns, columns))
        added = rng.normal(size=(rows, columns)) * (rank == min(rows, columns))

        def moved(t: float, m: Any = m, x: Any = x, y: Any = y, z: Any = added) -> Floats:
            return (np.eye(rows) + t * x) @ m @ (np.eye(columns) + t * y) + t * z

        direction = x @ m + m @ y + added
        value, forward, backward = derivatives(jnp.asarray(m), jnp.asarray(direction))
        np.testing.assert_allclose(value, reference_polar(m, rank), atol=1e-13)
        h = 1e-6
        after, before = (reference_polar(moved(t), rank) for t in (h, -h))
        # h^2 f''' + eps f / h ~ 1e-9, for derivatives of up to 10.
        np.testing.assert_allclose(forward, (after - before) / (2 * h), atol=1e-7)
        np.testing.assert_allclose(
            np.sum(backward * direction), np.sum(cotangent * forward), rtol=1e-10, atol=1e-12
        )


def test_polar_factor_is_finite_and_without_scale():
    factor = jax.jit(jax.vmap(lambda m: (polar_factor(m), jax.jacobian(polar_factor)(m))))
    m = with_singular_values(3, 3, [0.5, 1.0, 3.0], seed=15)
    edges = [np.zeros((3, 3)), np.ones((3, 3)), np.eye(3), np.diag([1.0, 1.0, 0.0])]
    batch = np.stack([m, 1e-30 * m, 1e30 * m, *edges]).astype(np.float32)
    got, slopes = factor(jnp.asarray(batch))
    # Float32 roundings, of singular values that differ by a factor of six.
    np.testing.assert_allclose(got[:3], np.repeat(reference_polar(m, 3)[None], 3, 0), atol=1e-5)
    want = [np.zeros((3, 3)), np.ones((3, 3)) / 3, np.eye(3), np.diag([1.0, 1.0, 0.0])]
    np.testing.assert_allclose(got[3:], want, atol=1e-6)
    assert np.all(np.isfinite(slopes))
    assert polar_factor(jnp.zeros((0, 3))).shape == (0, 3)
    assert jax.eval_shape(polar_factor, jnp.eye(2, dtype=jnp.bfloat16)).dtype == jnp.float32


# --- the policy ---------------------------------------------------------------------------------

MEAN = {"a": np.array([1.0, -2.0]), "b": np.array([[0.5, 3.0]])}
PARAMS = jax.tree.map(lambda x: x + 0.25, MEAN)


def flat(tree: Any) -> Any:
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def clipped(policy: control.Policy, posterior: Posterior) -> Any:
    assert policy.clipped is not None
    return policy.clipped(posterior, PARAMS)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("exact_hold", [False, True])
def test_policy_takes_the_gain_times_the_gradient(exact_hold: bool):
    """With a metric that depends on where the parameters are."""
    curvature, metric, _ = random_problems(seed=9, size=40)
    curvature, metric = curvature[0], metric[0]

    def at(params: Any) -> Any:
        return (1 + params["a"][0]) * metric

    objective = Objective(0.7, 1.9, 1.3, metric=at)
    policy = control.matrix_horizon(objective, 0.8, exact_hold=exact_hold)
    posterior = Posterior(gradient_mean=MEAN, curvature_mean=curvature)
    got = policy.step(posterior, PARAMS)
    assert jax.tree.map(jnp.shape, got) == jax.tree.map(jnp.shape, MEAN)
    gain = matrix_planning_gain(curvature, metric=2.25 * metric, exact_hold=exact_hold, **NUMBERS)
    np.testing.assert_allclose(flat(got), gain.gain @ flat(MEAN), rtol=1e-12)
    np.testing.assert_array_equal(clipped(policy, posterior), gain.clipped)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("exact_hold", [False, True])
def test_diagonal_beliefs_are_planned_on_as_by_horizon(exact_hold: bool):
    weight = jax.tree.map(lambda x: np.abs(x) + 0.2, MEAN)
    objective = Objective(0.7, 1.9, 1.3, metric=weight)
    curvature = {"a": np.array([0.4, -0.05]), "b": np.array([[-30.0, 2.0]])}
    policies = [
        policy(objective, 0.8, exact_hold=exact_hold)
        for policy in (control.matrix_horizon, control.horizon)
    ]
    for v, steep in ((curvature, 1), (None, 0)):
        posterior = Posterior(gradient_mean=MEAN, curvature_mean=v)
        got, want = (policy.step(posterior, PARAMS) for policy in policies)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14), got, want
        )
        counts = [sum(map(np.sum, jax.tree.leaves(clipped(p, posterior)))) for p in policies]
        assert counts == [steep, steep]


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_drift_is_taken_along():
    """The step is what control and drift do together, and none where the plan is unbounded."""
    rng = np.random.default_rng(10)
    a, curvature, metric = rng.normal(size=(4, 4)) / 2, positive(rng, 4), positive(rng, 4)

    def drift(params: Any) -> Any:
        x = a @ jnp.concatenate([params["a"], params["b"][0]])
        return {"a": x[:2], "b": x[None, 2:]}

    objective = Objective(0.7, 1.9, 1.3, metric=lambda x: metric, drift=drift)
    replanned = control.matrix_horizon(objective, 0.8)
    held = control.matrix_horizon(objective, 0.8, exact_hold=True)

    @jax.jit
    def plan(curvature: Any) -> Any:
        posterior = Posterior(gradient_mean=MEAN, curvature_mean=curvature)
        steps = [policy.step(posterior, PARAMS) for policy in (replanned, held)]
        return steps, clipped(held, posterior)

    x = flat(PARAMS)
    lq = oracles.lq_solution(curvature, x, flat(MEAN), metric, a, np.zeros(4), 0.7, 1.9, 1.3)
    speed = lq.closed_loop @ x + lq.offset
    generator = np.block([[lq.closed_loop, speed[:, None]], [np.zeros(5)]])
    steps, mask = plan(curvature)
    # As accurate as the Riccati solver.
    np.testing.assert_allclose(-flat(steps[0]), 0.8 * speed, rtol=1e-10)
    np.testing.assert_allclose(-flat(steps[1]), linalg.expm(0.8 * generator)[:4, 4], rtol=1e-10)
    assert not np.any(mask)
    steps, mask = plan(curvature - 50 * np.eye(4))
    for step in steps:
        np.testing.assert_array_equal(flat(step), 0)
    assert np.all(mask)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_policy_drives_an_optimizer_on_a_diagonal_belief(dtype: str):
    """Elementwise belief and no metric: the same training as with `control.horizon`."""
    belief = independent(gradient=LocalLevel(0.9), curvature=PrecisionWalk(0.99))
    objective = Objective(discount=1.0)
    start = jax.tree.map(lambda x: jnp.asarray(x, dtype), PARAMS)

    def train(policy: control.Policy) -> Any:
        optimizer = navigator(1.0, belief, policy)

        def step(carry: Any, _: None) -> Any:
            params, state = carry
            gradient = jax.tree.map(lambda x: x * (1 + x * x), params)
            updates, state = optimizer.update(gradient, state, params)
            assert {x.dtype for x in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}
            return (jax.tree.map(jnp.add, params, updates), state), None

        return jax.lax.scan(step, (start, optimizer.init(start)), None, length=20)[0][0]

    @jax.jit
    def both() -> Any:
        return train(control.matrix_horizon(objective, 0.1)), train(control.horizon(objective, 0.1))

    coupled, entries = both()
    assert np.all(np.abs(np.float64(flat(coupled)) - np.float64(flat(start))) > 0.05)
    # Twenty roundings of each format, of parameters of order one.
    tolerance = 40 * float(jnp.finfo(dtype).eps)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(
            np.asarray(x, np.float64), np.asarray(y, np.float64), atol=tolerance
        ),
        coupled,
        entries,
    )


def test_beliefs_that_do_not_fit_are_refused():
    policy = control.matrix_horizon(Objective())
    with pytest.raises(ValueError, match="control.matrix_horizon with this belief.*a matrix"):
        policy.step(Posterior(gradient_mean=MEAN, curvature_mean=np.eye(3)), PARAMS)
    with pytest.raises(ValueError, match="control.matrix_horizon with a belief .* gradient_mean"):
        policy.step(Posterior(curvature_mean=np.eye(4)), PARAMS)
    with pytest.raises(ValueError, match="matrix_horizon: time_step must be"):
        control.matrix_horizon(Objective(), 0.0)
    with pytest.raises(ValueError, match="matrix_horizon: margin must be"):
        control.matrix_horizon(Objective(), margin=1.5)


def test_functions_are_differentiated_in_what_they_close_over(x64: None) -> None:
    root = np.random.default_rng(8).normal(size=(4, 4))
    matrix = jnp.asarray(root @ root.T)

    def power(p: Any) -> Any:
        return symmetric_power(matrix, p).sum()

    def planned(discount: Any) -> Any:
        return matrix_planning_gain(matrix, rate=1.0, gain=1.0, discount=discount).gain.sum()

    for function, at in ((power, -0.5), (planned, 0.3)):
        slope = (function(at + 1e-6) - function(at - 1e-6)) / 2e-6
        np.testing.assert_allclose(jax.jit(jax.grad(function))(at), slope, rtol=1e-8)
