"""The objective checks what can be known when it is stated; its mechanics against numpy."""

import dataclasses
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from beliefnav import Objective
from beliefnav.objective import action, energy, lagrangian, velocity

# Nearly all the time is that of compiling: leave out what makes programs fast, not right.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

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
        dataclasses.replace(Objective(), **{name: value})


@pytest.mark.parametrize("name", ["rate", "gain", "discount"])
def test_position_is_checked_like_keyword(name: str):
    values = {"rate": 1.0, "gain": 1.0, "discount": 1.0, name: -1.0}
    with pytest.raises(ValueError, match=f"Objective: {name} must be"):
        Objective(*values.values())


def test_discount_zero_is_admissible_and_kept():
    assert Objective(discount=0).discount == 0
    assert dataclasses.replace(Objective(), discount=0.0).discount == 0


def test_tracers_pass_unchecked():
    with pytest.raises(ValueError, match="Objective: rate must be a positive"):
        Objective(rate=jnp.asarray(-1.0))

    @jit
    def rate(x: jax.Array) -> jax.Array:
        return jnp.asarray(Objective(rate=x).rate)

    assert rate(jnp.asarray(-2.0)) == -2


def test_constants_and_metric_are_leaves_of_a_pytree():
    objective = Objective(2.0, 3.0, 4.0, metric={"a": jnp.ones(2)})
    assert len(jax.tree.leaves(objective)) == 4
    doubled = jax.tree.map(lambda x: 2 * x, objective)
    assert isinstance(doubled, Objective)
    assert (doubled.rate, doubled.gain, doubled.discount) == (4.0, 6.0, 8.0)


# --- mechanics against numpy --------------------------------------------------------------------


def flat_loss(x: Any, xp: Any) -> Any:
    return x[0] ** 4 / 4 + xp.sin(x[1]) * x[2] + xp.exp(x[2] - x[0]) + x[0] * x[1]


def flat_drift(x: Any, xp: Any) -> Any:
    return xp.stack([x[1] * x[2], -xp.sin(x[0]), 0.3 * x[0] * x[1] - x[2]])


def flat_metric(x: Any, xp: Any) -> Any:
    """Symmetric positive definite everywhere, no two entries alike."""
    one = 0 * x[0] + 1
    factor = xp.stack(
        [
            xp.stack([one, 0.3 * x[1], 0.1 * one]),
            xp.stack([0.2 * one, 1.5 * one, x[0]]),
            xp.stack([xp.sin(x[2]), -0.4 * one, 0.7 * one]),
        ]
    )
    return factor @ factor.T + xp.eye(3)


def flat_diagonal(x: Any, xp: Any) -> Any:
    return xp.stack([1 + x[0] ** 2 * x[2] ** 2, xp.exp(x[1] - x[0]), 2 + xp.sin(x[2] + x[1])])


CONSTANT = np.array([0.5, 2.0, 3.0])


def tree_of(x: Any) -> dict[str, Any]:
    return {"a": x[:2], "b": x[2]}


def flat_of(tree: dict[str, Any]) -> Any:
    return jnp.concatenate([tree["a"], tree["b"][None]])


def tree_loss(tree: Any) -> jax.Array:
    return flat_loss(flat_of(tree), jnp)


def tree_drift(tree: Any) -> Any:
    return tree_of(flat_drift(flat_of(tree), jnp))


METRICS: dict[str, Any] = {
    "identity": (None, lambda x, xp: xp.eye(3)),
    "diagonal": (tree_of(CONSTANT), lambda x, xp: xp.diag(CONSTANT)),
    "diagonal field": (
        lambda tree: tree_of(flat_diagonal(flat_of(tree), jnp)),
        lambda x, xp: xp.diag(flat_diagonal(x, xp)),
    ),
    "dense field": (lambda tree: flat_metric(flat_of(tree), jnp), flat_metric),
}
RATE, GAIN, DISCOUNT = 0.7, 1.9, 1.3


def numpy_mechanics(
    metric: Any, drift: bool, x: np.ndarray, v: np.ndarray, discount: float = DISCOUNT
) -> dict[str, Any]:
    r"""Everything by differences of a numpy Lagrangian, none of which truncates.

    In the velocity it is quadratic, so that central differences are exact for any step; in the
    parameters it is analytic, so that a step along the imaginary axis can be as small as one likes.
    """

    def cost(x: Any, v: Any) -> Any:
        u = v - flat_drift(x, np) if drift else v
        return u @ metric(x, np) @ u / (2 * RATE) + GAIN * flat_loss(x, np)

    def in_velocity(f: Any) -> np.ndarray:
        return np.stack([(f(v + e) - f(v - e)) / 2 for e in np.eye(3)], -1)

    def in_params(v: np.ndarray) -> np.ndarray:
        return np.array([cost(x + 1e-30j * e, v).imag / 1e-30 for e in np.eye(3)])

    momentum = in_velocity(lambda v: cost(x, v))
    mass = in_velocity(lambda v: metric(x, np) @ v / RATE)
    mixed = in_velocity(in_params)  # [parameter, component of the momentum]
    force = in_params(v)
    return {
        "lagrangian": cost(x, v),
        "momentum": momentum,
        "acceleration": np.linalg.solve(mass, discount * momentum + force - mixed.T @ v),
        "energy": momentum @ v - cost(x, v),
    }


CASES = [
    ("identity", False),
    ("identity", True),
    ("diagonal", True),
    ("diagonal field", True),
    ("dense field", False),
    ("dense field", True),
]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("metric", "drift"), CASES)
def test_mechanics_equal_differences_of_a_numpy_lagrangian(metric: str, drift: bool):
    here, dense = METRICS[metric]
    problem = Objective(RATE, GAIN, DISCOUNT, here, tree_drift if drift else None)

    @jit
    @jax.vmap
    def mechanics(x: jax.Array, v: jax.Array, p: jax.Array) -> dict[str, Any]:
        params, speed = tree_of(x), tree_of(v)
        return {
            "lagrangian": lagrangian(problem, tree_loss, params, speed),
            "energy": energy(problem, tree_loss, params, speed),
            "velocity": flat_of(velocity(problem, params, tree_of(p))),
        }

    x, v = np.random.default_rng(0).normal(size=(2, 4, 3))
    wants = [
        numpy_mechanics(dense, drift, *at) | {"velocity": at[1]} for at in zip(x, v, strict=True)
    ]
    got = mechanics(x, v, np.stack([want["momentum"] for want in wants]))
    for name, values in got.items():
        # Rounding, times the condition of the metric (below a hundred).
        np.testing.assert_allclose(
            values, [want[name] for want in wants], rtol=1e-11, atol=1e-11, err_msg=name
        )


# --- the energy law -----------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("drift", [False, True], ids=["", "drift"])
def test_energy_changes_at_its_rate_along_a_solution(drift: bool):
    """dE/dt = gamma v p along a solution of the Euler-Lagrange equation, integrated in numpy."""
    metric, dense = METRICS["dense field"]
    start = np.array([0.4, -0.5, 0.3, 0.8, -0.6, 0.5, 0.0])
    for discount in (0.0, DISCOUNT):

        def field(t: float, y: np.ndarray, discount: float = discount) -> np.ndarray:
            there = numpy_mechanics(dense, drift, y[:3], y[3:6], discount)
            rate = discount * there["momentum"] @ y[3:6]
            return np.concatenate([y[3:6], there["acceleration"], [rate]])

        solution = integrate.solve_ivp(
            field, (0, 0.5), start, method="DOP853", rtol=1e-10, atol=1e-10
        )
        assert solution.success
        problem = Objective(RATE, GAIN, discount, metric, tree_drift if drift else None)
        x, v = solution.y[:3].T, solution.y[3:6].T
        got = jit(jax.vmap(lambda x, v, o=problem: energy(o, tree_loss, tree_of(x), tree_of(v))))(
            x, v
        )
        # The integrator's tolerance, accumulated over its steps.
        np.testing.assert_allclose(got - got[0], solution.y[6], rtol=0, atol=1e-7)
        if discount == 0:
            # Which says something, for its parts do change.
            assert np.ptp([flat_loss(x, np) for x in x]) > 0.05
        elif not drift:
            assert np.all(np.diff(got) > 0) and got[-1] - got[0] > 0.1


# --- along paths --------------------------------------------------------------------------------


def halved(errors: Any) -> np.ndarray:
    """Powers of two that an error falls by for half the time step."""
    return np.log2(np.abs(errors[:-1]) / np.abs(errors[1:]))


@pytest.mark.usefixtures("x64")
def test_action_converges_to_the_integral():
    """To second order for the midpoint, to first for either end of the intervals."""
    problem = Objective(RATE, GAIN, DISCOUNT, METRICS["dense field"][0], tree_drift)

    def place(t: Any) -> np.ndarray:
        return np.array([np.sin(t), np.cos(2 * t), t * t - t])

    def cost(t: float) -> float:
        x, v = place(t), np.array([np.cos(t), -2 * np.sin(2 * t), 2 * t - 1])
        u = v - flat_drift(x, np)
        running = u @ flat_metric(x, np) @ u / (2 * RATE) + GAIN * flat_loss(x, np)
        return np.exp(-DISCOUNT * t) * running

    @jit
    def actions(path: Any, time_step: jax.Array) -> jax.Array:
        def at(node: Any) -> jax.Array:
            return action(problem, tree_loss, path, time_step, node=node)

        default = action(problem, tree_loss, path, time_step)
        return jnp.append(jax.vmap(at)(jnp.array([0.5, 0.0, 1.0])), default)

    want = integrate.quad(cost, 0, 2, epsabs=1e-12, epsrel=1e-12)[0]
    errors = []
    for num_points in (201, 401):
        path = place(np.linspace(0, 2, num_points))
        got = actions({"a": path[:2].T, "b": path[2]}, 2 / (num_points - 1))
        errors.append(got - want)
    assert np.all(np.abs(errors[-1]) < 20 * (2 / 400) ** np.array([2, 1, 1, 2]))
    # The next order of the error is as large as the time step.
    np.testing.assert_allclose(halved(np.array(errors))[0], [2, 1, 1, 2], atol=0.02)


# --- what does not fit --------------------------------------------------------------------------

ONES = jnp.ones(3)


@pytest.mark.parametrize(
    "metric",
    [
        jnp.ones(2),
        jnp.ones((2, 2)),
        [jnp.ones(3)],
        lambda x: jnp.ones((3, 2)),
        lambda x: {"x": x},
        lambda x: jnp.ones(()),
    ],
)
def test_metric_that_does_not_fit(metric: Any):
    problem = Objective(metric=metric)
    with pytest.raises(ValueError, match=r"The metric must be .* matrix \[3, 3\]"):
        lagrangian(problem, jnp.sum, ONES, ONES)
    with pytest.raises(ValueError, match=r"The metric must be .* matrix \[3, 3\]"):
        velocity(problem, ONES, ONES)


@pytest.mark.parametrize("drift", [lambda x: x[:2], lambda x: [x], lambda x: jnp.zeros(())])
def test_drift_that_does_not_fit(drift: Any):
    problem = Objective(drift=drift)
    with pytest.raises(ValueError, match=r"The drift must be a tree like the parameters"):
        lagrangian(problem, jnp.sum, ONES, ONES)
    with pytest.raises(ValueError, match=r"The drift must be a tree like the parameters"):
        energy(problem, jnp.sum, ONES, ONES)


@pytest.mark.parametrize("speed", [[ONES], {"v": ONES}, jnp.ones(2), jnp.ones(())])
@pytest.mark.parametrize("mechanics", [lagrangian, energy])
def test_velocity_that_does_not_fit(mechanics: Any, speed: Any):
    """Also where broadcasting, or a metric that is the identity, would make a number of it."""
    with pytest.raises(ValueError, match=r"The velocity must be a tree like the parameters"):
        mechanics(Objective(), jnp.sum, ONES, speed)


@pytest.mark.parametrize("loss", [lambda x: x, lambda x: x[:1], lambda x: 1, lambda x: 1j * x[0]])
def test_loss_that_is_not_one_real_number(loss: Any):
    with pytest.raises(ValueError, match="The loss must be one real number, got an array of shape"):
        lagrangian(Objective(), loss, ONES, ONES)
    with pytest.raises(ValueError, match="The loss must be one real number, got an array of shape"):
        energy(Objective(), loss, ONES, ONES)


def test_paths_too_short_or_uneven():
    with pytest.raises(ValueError, match="action: the path must have at least 2 points"):
        action(Objective(), jnp.sum, jnp.ones((1, 3)), 1.0)
    uneven = {"a": jnp.ones((4, 2)), "b": jnp.ones(3)}
    with pytest.raises(ValueError, match=r"action: every array of a path must have time as its"):
        action(Objective(), lambda x: x["b"], uneven, 1.0)
    with pytest.raises(ValueError, match=r"action: every array of a path must have time as its"):
        action(Objective(), jnp.sum, jnp.ones(()), 1.0)


@pytest.mark.parametrize("time_step", [0, -0.1, math.inf, math.nan])
def test_time_step_out_of_range(time_step: float):
    with pytest.raises(ValueError, match="action: time_step must be a positive, finite number"):
        action(Objective(), jnp.sum, jnp.ones((4, 3)), time_step)


@pytest.mark.usefixtures("x64")
def test_a_constant_matrix_is_a_metric():
    matrix = np.array([[2.0, 0.5], [0.5, 1.0]])
    x, v = np.array([0.3, -0.2]), np.array([1.0, 2.0])
    got = lagrangian(Objective(rate=0.7, gain=1.3, metric=matrix), lambda x: x @ x, x, v)
    # A few roundings.
    np.testing.assert_allclose(got, v @ matrix @ v / 1.4 + 1.3 * x @ x, rtol=1e-14)
