"""The LQ policy against scipy's Riccati solver, direct minimisation and the paper's figures."""

import decimal
from decimal import Decimal
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from numpy.typing import NDArray
from scipy import integrate, linalg

from beliefnav import Objective
from beliefnav.control import lq_policy, planning_gain, quadratic_value
from beliefnav.control.gains.lq import LQPolicy, LQStatus, diagonal_lq_policy
from tests import oracles

Floats = NDArray[np.float64]


class Problem(NamedTuple):
    """Loss g (x - c) + (x - c) H (x - c) / 2, drift A x + a; the order is that of the oracle."""

    hessian: Any
    center: Any
    gradient: Any
    metric: Any
    drift_matrix: Any
    drift_offset: Any
    rate: Any
    gain: Any
    discount: Any

    def loss(self, x: Any) -> Any:
        d = x - self.center
        return self.gradient @ d + d @ self.hessian @ d / 2

    def drift(self, x: Any) -> Any:
        return self.drift_matrix @ x + self.drift_offset

    def objective(self) -> Objective:
        return Objective(self.rate, self.gain, self.discount, lambda x: self.metric, self.drift)

    def policy(self) -> LQPolicy:
        return lq_policy(self.objective(), self.hessian, self.center, self.gradient)


def positive(rng: np.random.Generator, n: int) -> Floats:
    x = rng.normal(size=(n, n))
    return x @ x.T / n + 0.3 * np.eye(n)


def random_problem(rng: np.random.Generator, n: int, kind: int) -> Problem:
    """Of kind 0 positive definite, 1 semidefinite, 2 undiscounted, 3 indefinite; any drift."""
    while True:
        hessian = positive(rng, n)
        if kind == 1:
            values, vectors = np.linalg.eigh(hessian)
            hessian = (vectors * np.where(np.arange(n) == 0, 0, values)) @ vectors.T
        if kind == 3:
            hessian -= rng.uniform(0.4, 1.0) * np.eye(n)
        rate, gain, discount = np.exp(rng.uniform(-1, 1, 3))
        problem = Problem(
            (hessian + hessian.T) / 2,
            rng.normal(size=n),
            rng.normal(size=n),
            positive(rng, n),
            rng.normal(size=(n, n)) / np.sqrt(n),
            rng.normal(size=n),
            rate,
            gain,
            0.0 if kind == 2 else discount,
        )
        drift, wells = problem.drift_matrix, np.linalg.eigvalsh(hessian)[0]
        # Nearer to the axis scipy itself loses digits.
        solvable = oracles.has_lq_solution(
            hessian, problem.metric, drift, rate, gain, problem.discount, 0.1
        )
        if solvable and (kind != 3 or wells < 0):
            return problem


def padded(problem: Problem, n: int) -> Problem:
    """The problem next to trivial ones of one parameter each, n parameters in all."""
    extra = n - len(problem.center)

    def grow(x: Any) -> Any:
        if np.ndim(x) == 2:
            return linalg.block_diag(x, np.eye(extra))
        return np.pad(x, (0, extra)) if np.ndim(x) == 1 else x

    grown = Problem(*map(grow, problem))
    grown.drift_matrix[n - extra :, n - extra :] = 0
    return grown


def stack(problems: list[Problem]) -> Problem:
    return Problem(*(np.stack([np.asarray(x) for x in f]) for f in zip(*problems, strict=True)))


solve = jax.jit(jax.vmap(Problem.policy))
solve_one = jax.jit(Problem.policy)
follow = jax.jit(LQPolicy.path)


def problem_2d(**changes: Any) -> Problem:
    """A problem of two parameters that couples everything, or with some fields changed."""
    problem = Problem(
        hessian=np.array([[1.0, 0.3], [0.3, 0.5]]),
        center=np.array([0.5, -0.4]),
        gradient=np.array([0.1, 0.2]),
        metric=np.array([[1.2, 0.4], [0.4, 0.9]]),
        drift_matrix=np.array([[-0.1, 0.6], [-0.5, 0.15]]),
        drift_offset=np.array([0.15, -0.2]),
        rate=1.1,
        gain=1.3,
        discount=0.7,
    )
    return problem._replace(**changes)


FREE = {
    "gradient": np.zeros(2),
    "metric": np.eye(2),
    "drift_matrix": np.zeros((2, 2)),
    "drift_offset": np.zeros(2),
    "rate": 1.0,
    "gain": 1.0,
}


# --- the policy ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_policy_equals_the_riccati_solver_on_random_problems():
    rng = np.random.default_rng(0)
    problems = [random_problem(rng, 1 + i % 6, i // 6 % 4) for i in range(200)]
    assert sum(np.linalg.eigvalsh(p.hessian)[0] < -1e-3 for p in problems) > 30
    got = solve(stack([padded(p, 6) for p in problems]))
    np.testing.assert_array_equal(got.status, LQStatus.SOLVED)
    for i, problem in enumerate(problems):
        n = len(problem.center)
        want = oracles.lq_solution(*problem)

        def close(got: Any, want: Any) -> None:
            # Both solvers are backward stable; the gap of 0.1 to the axis bounds the condition.
            tolerance = 1e-8 * float(1 + np.abs(want).max())
            np.testing.assert_allclose(got, want, rtol=0, atol=tolerance)

        p, s, f = got.quadratic[i, :n, :n], got.linear[i, :n], got.closed_loop[i, :n, :n]
        close(p, want.quadratic)
        close(s, want.linear)
        close(f, want.closed_loop)
        close(got.center_velocity[i, :n], want.closed_loop @ problem.center + want.offset)
        assert np.linalg.eigvals(f).real.max() < problem.discount / 2
        # At rest at the equilibrium: to the scale of what cancels there.
        rest = got.equilibrium[i, :n]
        scale = float(1 + np.linalg.norm(want.closed_loop) * np.linalg.norm(rest))
        np.testing.assert_allclose(want.closed_loop @ rest + want.offset, 0, atol=1e-8 * scale)


@pytest.mark.usefixtures("x64")
def test_value_obeys_the_equations_of_the_stationary_policy():
    r"""$\gamma P$, $\gamma s$ and the velocity, in absolute coordinates."""
    problem = problem_2d()
    h, c, g, metric, a, offset, rate, gain, discount = problem
    policy = solve_one(problem)
    p, s = np.asarray(policy.quadratic), np.asarray(policy.linear)
    mobility = rate * np.linalg.inv(metric)
    # Roundings of terms of order one.
    np.testing.assert_allclose(
        discount * p, gain * h + p @ a + a.T @ p - p @ mobility @ p, atol=1e-13
    )
    np.testing.assert_allclose(
        discount * s, gain * (g - h @ c) + a.T @ s + p @ offset - p @ mobility @ s, atol=1e-13
    )
    x = np.array([0.7, 1.9])
    want = (a - mobility @ p) @ x + offset - mobility @ s
    np.testing.assert_allclose(policy.velocity(x), want, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_point_of_expansion_does_not_matter():
    """The same loss expanded elsewhere is the same problem."""
    problem = problem_2d()
    policy = solve_one(problem)
    elsewhere = np.array([-1.0, 2.0])
    slope = problem.gradient + problem.hessian @ (elsewhere - problem.center)
    moved = solve_one(problem._replace(center=elsewhere, gradient=slope))
    for name in ("quadratic", "linear", "closed_loop", "equilibrium"):
        np.testing.assert_allclose(getattr(moved, name), getattr(policy, name), atol=1e-12)


# --- paths --------------------------------------------------------------------------------------

TIMES = np.array([0.0, 0.3, 1.0, 4.0])


@pytest.mark.usefixtures("x64")
def test_path_is_that_of_the_differential_equation():
    """Regular; flat and discounted, where it drifts off; singular and at rest."""
    flat = np.diag([1.0, 0.0])
    problems = [
        problem_2d(),
        problem_2d(**(FREE | {"hessian": flat, "gradient": np.array([0.1, 0.2])})),
        problem_2d(**FREE, hessian=flat),
    ]
    starts = np.array([[1.0, 2.0], [-1.0, 0.5], [2.0, 2.0]])
    policies = [solve_one(problem) for problem in problems]
    got = [follow(policy, x, TIMES) for policy, x in zip(policies, starts, strict=True)]
    for problem, policy, start, path in zip(problems, policies, starts, got, strict=True):
        loop, speed = np.asarray(policy.closed_loop), np.asarray(policy.center_velocity)
        want = [
            # Affine motion is linear in one more coordinate.
            linalg.expm(t * np.block([[loop, speed[:, None]], [np.zeros((1, 3))]]))
            @ np.append(start - problem.center, 1.0)
            for t in TIMES
        ]
        np.testing.assert_allclose(path, problem.center + np.array(want)[:, :2], atol=1e-12)
        by_steps = integrate.solve_ivp(
            lambda t, x, f=policy.velocity: f(x), (0, 4.0), start, rtol=1e-9, atol=1e-9
        )
        np.testing.assert_allclose(path[-1], by_steps.y[:, -1], atol=1e-7)  # its tolerance
    # Without curvature the policy is gradient descent at the velocity -eta k g / gamma.
    np.testing.assert_allclose(got[1][:, 1], 0.5 - 0.2 / 0.7 * TIMES, rtol=1e-12)
    assert not np.all(np.isfinite(policies[1].equilibrium))
    # The flat direction of a minimum stays where it is, and the center is at rest.
    np.testing.assert_allclose(got[2][:, 1], 2.0, rtol=1e-12)
    np.testing.assert_array_equal(policies[2].equilibrium, problems[2].center)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", [0, 1, 2, 3])
def test_path_minimises_the_discretised_objective(kind: int):
    problem = random_problem(np.random.default_rng(10 + kind), 2, kind)
    start = problem.center + np.array([1.0, -0.5])
    policy = solve_one(problem)
    loop = np.linalg.eigvals(policy.closed_loop).real.max()
    # The free end is felt at time t as e^{-(gamma - lambda) (T - t)}.
    duration = 4 + 22 / (problem.discount - loop)
    errors = []
    for points_per_time in (50, 100):
        times = np.arange(int(duration * points_per_time) + 1) / points_per_time
        want = oracles.lq_path(start, *problem, times=times)[: 4 * points_per_time + 1]
        at = np.arange(5) * points_per_time
        got = policy.path(start, times[at])
        errors.append(np.abs(got - want[at]).max() / np.abs(want[at]).max())
    # Second order in the grid.
    assert errors[1] < 1e-3
    np.testing.assert_allclose(errors[0] / errors[1], 4, atol=0.3)


# --- figures and formulas -----------------------------------------------------------------------


def rotation(q: Any) -> Floats:
    return q * np.array([[0.0, -1.0], [1.0, 0.0]])


MINIMUM = np.array([0.0, -0.5])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("drift", "discount", "equilibrium"),
    [
        (rotation(10.0), 0.0, [0.0, -0.0192308]),
        (rotation(10.0), 1.0, [0.0018322, -0.0190546]),
        (-10.0 * np.eye(2), 0.0, [0.0, -0.0192308]),
        (-10.0 * np.eye(2), 1.0, [0.0, -0.0175439]),
    ],
)
def test_figures_of_rotation_and_decay(drift: Floats, discount: float, equilibrium: list[float]):
    policy = solve_one(
        problem_2d(
            **(FREE | {"drift_matrix": drift}),
            hessian=4 * np.eye(2),
            center=MINIMUM,
            discount=discount,
        )
    )
    np.testing.assert_allclose(policy.equilibrium, equilibrium, atol=5e-8)  # all digits given
    if drift[0, 0] and discount:
        np.testing.assert_allclose(policy.closed_loop, -10.188779 * np.eye(2), atol=5e-7)


@pytest.mark.usefixtures("x64")
def test_figure_of_a_diagonal_metric():
    metric = np.diag([1 / 50, 1.0])
    policy = solve_one(
        problem_2d(
            **(FREE | {"metric": metric}), hessian=4 * np.eye(2), center=MINIMUM, discount=0.0
        )
    )
    np.testing.assert_allclose(policy.closed_loop, -np.diag([14.1421, 2.0]), atol=5e-5)
    np.testing.assert_array_equal(policy.equilibrium, MINIMUM)


@pytest.mark.usefixtures("x64")
def test_formulas_of_rotation_and_decay():
    """Over a grid, for rate and gain that are not one."""
    grid = np.meshgrid([-3.0, 0.0, 0.5, 10.0], [0.0, 0.3, 2.0], [0.2, 4.0], [0.0, 1.3])
    q, j, discount, moved = (x.ravel() for x in grid)
    h = np.where(moved > 0, 0.8, 5.0)
    eta, k = 0.6, 1.7
    free = FREE | {"rate": eta, "gain": k, "center": MINIMUM}

    def policies(drifts: list[Floats]) -> Any:
        changes = (
            free | {"drift_matrix": a, "hessian": curvature * np.eye(2), "discount": rate}
            for a, curvature, rate in zip(drifts, h, discount, strict=True)
        )
        solved = [solve_one(problem_2d(**change)) for change in changes]
        return jax.tree.map(lambda *x: np.stack(x), *solved)

    x = eta * k * h
    spiral = policies([rotation(f) for f in q])
    decay = np.sqrt(discount**2 / 4 + x) - discount / 2
    want = -decay[:, None, None] * np.eye(2) + np.stack([rotation(f) for f in q])
    np.testing.assert_allclose(spiral.closed_loop, want, atol=1e-12)
    center = x / (x + q**2 - 1j * q * discount) * (MINIMUM[0] + 1j * MINIMUM[1])
    want = np.stack([center.real, center.imag], -1)
    np.testing.assert_allclose(spiral.equilibrium, want, atol=1e-12)

    pulled = policies([-f * np.eye(2) for f in j])
    decay = np.sqrt(discount**2 / 4 + x + j * (j + discount)) - discount / 2
    np.testing.assert_allclose(pulled.closed_loop, -decay[:, None, None] * np.eye(2), atol=1e-12)
    want = (x / (x + j * (j + discount)))[:, None] * MINIMUM
    np.testing.assert_allclose(pulled.equilibrium, want, atol=1e-12)


# --- diagonal problems --------------------------------------------------------------------------

CENTER = {"w": np.array([[0.5, -1.0], [2.0, 0.3]]), "b": np.array(-0.7)}
CURVATURE = {"w": np.array([[1.0, -0.05], [0.0, 40.0]]), "b": np.array(0.3)}
SLOPE = {"w": np.array([[0.2, -0.3], [0.0, 5.0]]), "b": np.array(1.0)}
WEIGHT = {"w": np.array([[0.5, 1.0], [2.0, 1.5]]), "b": np.array(0.8)}
SLOPES_OF_DRIFT = {"w": np.array([[-0.4, 0.1], [0.2, 0.9]]), "b": np.array(1.4)}
OFFSETS = {"w": np.array([[0.1, 0.0], [-0.3, 0.4]]), "b": np.array(0.2)}


def elementwise(x: Any) -> Any:
    return jax.tree.map(lambda a, b, x: a * x + b, SLOPES_OF_DRIFT, OFFSETS, x)


def flat(tree: Any) -> Any:
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def diagonal(tree: Any) -> Any:
    return np.diag(flat(tree))


@pytest.mark.usefixtures("x64")
def test_diagonal_policy_is_the_policy_entry_by_entry():
    objective = Objective(0.7, 1.9, 1.3, metric=WEIGHT, drift=elementwise)
    start = jax.tree.map(np.zeros_like, CENTER)

    @jax.jit
    def both() -> Any:
        full = lq_policy(objective, diagonal(CURVATURE), CENTER, SLOPE)
        entries = diagonal_lq_policy(objective, CURVATURE, CENTER, SLOPE)
        return [(p, p.velocity(start), p.path(start, TIMES)) for p in (full, entries)]

    (full, *full_motion), (entries, *motion) = both()
    assert full.status == entries.status == LQStatus.SOLVED

    def close(a: Any, b: Any) -> None:
        # Float64, less what the Schur-free solver loses to a spread of rates of 1e2.
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)

    close(full.quadratic, diagonal(entries.quadratic))
    close(full.closed_loop, diagonal(entries.closed_loop))
    close(full.linear, flat(entries.linear))
    close(full.center_velocity, flat(entries.center_velocity))
    jax.tree.map(close, full.equilibrium, entries.equilibrium)
    jax.tree.map(close, full_motion, motion)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("exact_hold", [False, True])
def test_without_drift_a_step_of_the_diagonal_policy_is_the_planning_gain(exact_hold: bool):
    objective = Objective(0.7, 1.9, 1.3, metric=WEIGHT)

    @jax.jit
    def planned() -> Any:
        policy = diagonal_lq_policy(objective, CURVATURE, CENTER, SLOPE)
        if exact_hold:
            after = policy.path(CENTER, np.array([0.8]))
            return jax.tree.map(lambda y, x: y[0] - x, after, CENTER)
        return jax.tree.map(lambda v: 0.8 * v, policy.velocity(CENTER))

    def want(v: Any, g: Any, m: Any) -> Any:
        gain = planning_gain(
            v, rate=0.7, gain=1.9, discount=1.3, time_step=0.8, metric=g, exact_hold=exact_hold
        ).gain
        return -gain * m

    jax.tree.map(
        # A handful of roundings, and those of the parameters that the step is the difference of.
        lambda got, *leaves: np.testing.assert_allclose(got, want(*leaves), rtol=1e-12, atol=1e-15),
        planned(),
        CURVATURE,
        WEIGHT,
        SLOPE,
    )


@pytest.mark.parametrize("decay", [0.0, 1e-3])
def test_diagonal_policy_keeps_its_digits_in_float32(decay: float):
    """Also where the discount is all there is to see in sqrt(gamma^2 / 4 + x) - gamma / 2."""
    grid = np.meshgrid([1e-9, 1e-5, 1e-2, 1.0, 100.0], [1e-3, 1.0, 100.0, 1e4])
    curvature, discount = (x.ravel().astype(np.float32) for x in grid)
    one = jnp.ones_like(curvature)
    decay = float(np.float32(decay))

    def policy(h: Any, discount: Any) -> Any:
        objective = Objective(0.75, 1.5, discount, drift=lambda x: -decay * x)
        return diagonal_lq_policy(objective, h, jnp.ones_like(h))

    got = jax.jit(jax.vmap(policy))(curvature, discount)
    assert got.closed_loop.dtype == jnp.float32
    with decimal.localcontext(decimal.Context(prec=60)):
        for i in range(len(one)):
            x = Decimal("1.125") * Decimal(float(curvature[i]))
            j, half = Decimal(decay), Decimal(float(discount[i])) / 2
            root = ((j + half) ** 2 + x).sqrt()
            # A handful of float32 roundings.
            rate = root - half
            np.testing.assert_allclose(got.closed_loop[i], -float(rate), rtol=2e-6)
            p = (rate - j) / Decimal("0.75")
            np.testing.assert_allclose(got.quadratic[i], float(p), rtol=2e-6)


@pytest.mark.parametrize("frequency", [1.0, 1e-4])
def test_drift_that_couples_entries_is_not_diagonal(frequency: float):
    """At a rate of a fraction of a step, too."""
    objective = Objective(drift=lambda x: frequency * jnp.stack([-x[1], x[0]]))
    policy = jax.jit(lambda: diagonal_lq_policy(objective, jnp.ones(2), jnp.ones(2)))()
    assert policy.status == LQStatus.DRIFT_NOT_DIAGONAL
    assert np.all(np.isnan(policy.quadratic)) and np.all(np.isnan(policy.velocity(jnp.ones(2))))


@pytest.mark.usefixtures("x64")
def test_entries_without_a_solution_are_nan_and_the_others_are_not():
    # At rate, gain and metric 1 the discount 2 bears curvature down to -1.
    curvature = np.array([-1.01, -0.99, 1.0])
    policy = jax.jit(diagonal_lq_policy)(
        Objective(discount=2.0), curvature, np.zeros(3), np.ones(3)
    )
    assert policy.status == LQStatus.NO_STABILISING_SOLUTION
    for name in ("quadratic", "linear", "closed_loop", "equilibrium", "center_velocity"):
        np.testing.assert_array_equal(np.isnan(getattr(policy, name)), [True, False, False])
    np.testing.assert_allclose(policy.quadratic[1:], [-0.9, np.sqrt(2) - 1], rtol=1e-12)


# --- no solution, and errors --------------------------------------------------------------------

UNSOLVABLE = {
    "a well too steep": ({"hessian": -2 * np.eye(2)}, LQStatus.NO_STABILISING_SOLUTION),
    "flat and undiscounted": (
        {"hessian": np.zeros((2, 2)), "discount": 0.0},
        LQStatus.NO_STABILISING_SOLUTION,
    ),
    "flat in one direction and undiscounted": (
        {"hessian": np.diag([1.0, 0.0]), "discount": 0.0},
        LQStatus.NO_STABILISING_SOLUTION,
    ),
    "indefinite metric": ({"metric": np.diag([1.0, -1.0])}, LQStatus.METRIC_NOT_POSITIVE),
    "asymmetric metric": (
        {"metric": np.array([[1.0, 0.5], [0.0, 1.0]])},
        LQStatus.METRIC_NOT_POSITIVE,
    ),
    "metric not finite": ({"metric": np.full((2, 2), np.nan)}, LQStatus.METRIC_NOT_POSITIVE),
    "asymmetric hessian": (
        {"hessian": np.array([[1.0, 0.5], [0.0, 1.0]])},
        LQStatus.HESSIAN_NOT_SYMMETRIC,
    ),
    "hessian not finite": ({"hessian": np.full((2, 2), np.nan)}, LQStatus.HESSIAN_NOT_SYMMETRIC),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", UNSOLVABLE)
def test_what_has_no_solution_is_nan_with_its_reason(name: str):
    changes, status = UNSOLVABLE[name]
    policy = solve_one(problem_2d(**(FREE | {"hessian": np.eye(2)} | changes)))
    assert policy.status == status
    for x in policy[1:-1]:
        assert np.all(np.isnan(x))


def test_misfits_are_refused_and_named():
    flat, eye = jnp.zeros(2), np.eye(2)
    with pytest.raises(ValueError, match=r"lq_policy: hessian must have shape \(2, 2\).*\(3, 3\)"):
        lq_policy(Objective(), np.eye(3), flat)
    with pytest.raises(ValueError, match=r"hessian is not symmetric: H - H\^T reaches 0.5"):
        lq_policy(Objective(), np.array([[1.0, 0.5], [0.0, 1.0]]), flat)
    with pytest.raises(ValueError, match="lq_policy: gradient must fit the parameters"):
        lq_policy(Objective(), eye, flat, jnp.zeros(3))
    with pytest.raises(ValueError, match="lq_policy: the metric is not positive definite"):
        lq_policy(Objective(metric=lambda x: -eye), eye, flat)
    with pytest.raises(ValueError, match="lq_policy: the metric is not symmetric"):
        lq_policy(Objective(metric=lambda x: np.array([[1.0, 0.5], [0.0, 1.0]])), eye, flat)
    with pytest.raises(ValueError, match="The drift must be a tree like the parameters"):
        lq_policy(Objective(drift=lambda x: x[:1]), eye, flat)
    with pytest.raises(ValueError, match="diagonal_lq_policy: curvature must fit the parameters"):
        diagonal_lq_policy(Objective(), jnp.ones(3), flat)
    with pytest.raises(ValueError, match="diagonal_lq_policy: gradient must fit the parameters"):
        diagonal_lq_policy(Objective(), jnp.ones(2), flat, jnp.zeros(3))
    with pytest.raises(ValueError, match="diagonal_lq_policy with a metric that is a matrix"):
        diagonal_lq_policy(Objective(metric=lambda x: eye), jnp.ones(2), flat)
    with pytest.raises(ValueError, match="diagonal_lq_policy: a diagonal metric must be positive"):
        diagonal_lq_policy(Objective(metric=np.array([1.0, -1.0])), jnp.ones(2), flat)


def test_diagonal_metric_that_is_not_positive_is_reported_under_jit():
    def policy(metric: Any) -> Any:
        return diagonal_lq_policy(Objective(metric=metric), jnp.ones(2), jnp.zeros(2))

    got = jax.jit(policy)(jnp.array([1.0, -1.0]))
    assert got.status == LQStatus.METRIC_NOT_POSITIVE
    np.testing.assert_array_equal(np.isnan(got.closed_loop), [False, True])


# --- derivatives --------------------------------------------------------------------------------


def outputs(
    hessian: Any, discount: Any, rate: Any, center: Any, drift_matrix: Any, drift_offset: Any
) -> Any:
    policy = problem_2d(
        hessian=(hessian + hessian.T) / 2,
        discount=discount,
        rate=rate,
        center=center,
        drift_matrix=drift_matrix,
        drift_offset=drift_offset,
    ).policy()
    path = policy.path(jnp.array([1.0, 3.0]), jnp.array([0.5, 2.0]))
    return policy.quadratic, policy.linear, policy.closed_loop, policy.equilibrium, path


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("mode", "order"), [("fwd", 1), ("rev", 2)])
def test_first_and_second_derivatives_of_the_policy_and_its_path(mode: str, order: int):
    problem = problem_2d()
    names = ("hessian", "discount", "rate", "center", "drift_matrix", "drift_offset")
    arguments = tuple(jnp.asarray(getattr(problem, name)) for name in names)
    # Central differences in float64.
    check_grads(jax.jit(outputs), arguments, order, modes=(mode,), atol=1e-6, rtol=1e-6)


# --- the value ----------------------------------------------------------------------------------


def cost_of_following(problem: Problem, lowest: float, start: Floats, duration: float) -> float:
    """The discounted cost of the oracle's policy, integrated along its path."""
    policy = oracles.lq_solution(*problem)

    def rates(t: float, state: Floats) -> Floats:
        x = state[:-1]
        velocity = policy.closed_loop @ x + policy.offset
        control = velocity - problem.drift(x)
        kinetic = control @ problem.metric @ control / (2 * problem.rate)
        cost = kinetic + problem.gain * (lowest + problem.loss(x))
        return np.append(velocity, np.exp(-problem.discount * t) * cost)

    solution = integrate.solve_ivp(
        rates, (0, duration), np.append(start, 0.0), "DOP853", rtol=1e-12, atol=1e-12
    )
    return solution.y[-1, -1]


def value_of(problem: Problem, lowest: Any) -> Any:
    return quadratic_value(
        problem.objective(), lambda x: lowest + problem.loss(x), jnp.asarray(problem.center)
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("gradient", [np.zeros(2), np.array([0.1, 0.2])])
def test_value_is_the_cost_of_following_the_policy(gradient: Floats):
    """With a loss at the minimum, and a drift that acts there; also expanded next to it."""
    problem = problem_2d(gradient=gradient)
    value = jax.jit(value_of)(problem, 0.37)
    assert value.status == LQStatus.SOLVED and np.abs(value.center_gradient).min() > 0.01
    for start in problem.center, problem.center + np.array([1.0, -2.0]):
        # e^{-0.7 * 45} of the cost is left out.
        want = cost_of_following(problem, 0.37, start, 45.0)
        np.testing.assert_allclose(value(start), want, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_undiscounted_value_is_finite_only_if_staying_is_free():
    free = problem_2d(**FREE, discount=0.0)
    start = free.center + np.array([1.0, -2.0])
    want = cost_of_following(free, 0.0, start, 45.0)  # rates 0.7 and 1.1, and the squares of both
    with pytest.raises(ValueError, match="at discount 0 a minimum where staying costs 0.37"):
        value_of(free, 0.37)
    traced = jax.jit(value_of)
    assert not np.isfinite(traced(free, 0.37)(start))
    pushed = free._replace(drift_offset=np.array([0.3, 0.0]))
    assert not np.isfinite(traced(pushed, 0.0)(start))
    np.testing.assert_allclose(traced(free, 0.0)(start), want, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_undiscounted_value_at_a_minimum_that_was_found_numerically():
    """As its error asks: with the loss that was found there subtracted.

    A slope of 1e-9 that is left there is worth its square.
    """
    minimum = jnp.array([0.0, 1e-9])
    lowest = minimum @ minimum / 2
    value = quadratic_value(Objective(discount=0.0), lambda x: x @ x / 2 - lowest, minimum)
    np.testing.assert_allclose(value(jnp.array([1.0, 2.0])), 2.5, rtol=1e-8)
