"""Policies: values, limits of one another, masks and errors."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg, stats

from beliefnav import Objective, beliefs, control, filters
from beliefnav.beliefs import Kronecker, Posterior
from tests import oracles

M = {"a": np.array([1.0, -2.0, 0.5]), "b": np.array(3.0)}
V = {"a": np.array([4.0, 0.25, -0.1]), "b": np.array(9.0)}
G = {"a": np.array([1.0, 4.0, 2.0]), "b": np.array(0.5)}
PARAMS = jax.tree.map(np.zeros_like, M)
POSTERIOR = Posterior(gradient_mean=M, curvature_mean=V)
GRADIENT_ONLY = Posterior(gradient_mean=M)


def check(policy: control.Policy, want: Callable[..., Any], clipped: Any, *trees: Any) -> None:
    """The step is ``want`` of the trees' leaves, the clipped mask as given."""
    jax.tree.map(
        # A handful of float64 roundings.
        lambda got, *leaves: np.testing.assert_allclose(got, want(*leaves), rtol=1e-13),
        policy.step(POSTERIOR, PARAMS),
        *trees,
    )
    if clipped is None:
        assert policy.clipped is None
    else:
        assert policy.clipped is not None
        jax.tree.map(np.testing.assert_array_equal, policy.clipped(POSTERIOR, PARAMS), clipped)


AT_SADDLE = {"a": np.array([False, False, True]), "b": np.array(False)}


@pytest.mark.usefixtures("x64")
def test_myopic():
    check(control.myopic(), lambda m: m, None, M)
    check(control.myopic(metric=G), lambda m, g: m / g, None, M, G)


@pytest.mark.usefixtures("x64")
def test_myopic_in_a_matrix_metric_is_the_natural_gradient():
    """A matrix over the raveled parameters, or where they are; NaN where it is not positive."""
    x = np.random.default_rng(0).normal(size=(4, 4))
    metric = x @ x.T + 0.1 * np.eye(4)
    m = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(M)])
    want = np.linalg.solve(metric, m)

    def at(params: Any) -> Any:
        return (2 + params["b"]) * metric

    for policy, scale in ((control.myopic(metric), 1), (control.myopic(at), 2)):
        got = policy.step(GRADIENT_ONLY, PARAMS)
        assert jax.tree.map(jnp.shape, got) == jax.tree.map(jnp.shape, M)
        np.testing.assert_allclose(
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(got)]),
            want / scale,
            rtol=1e-11,
        )
    # A callable may give a diagonal too.
    check(control.myopic(lambda params: G), lambda m, g: m / g, None, M, G)
    bad = control.myopic(metric - 3 * np.linalg.eigvalsh(metric)[-1] * np.eye(4))
    assert np.all(np.isnan(bad.step(GRADIENT_ONLY, PARAMS)["a"]))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("power", [0.5, 1.0])
def test_myopic_in_a_kronecker_metric_is_that_in_its_matrix(power: float):
    rng = np.random.default_rng(1)
    mean = {"m": rng.normal(size=(2, 3)), "v": rng.normal(size=3), "s": np.array(2.0), "n": None}
    sides = {"m": (2, 3), "v": (3, 1), "s": (1, 1)}

    def spd(n: int) -> Any:
        x = rng.normal(size=(n, n))
        return x @ x.T + 0.1 * np.eye(n)

    metric: Any = {k: Kronecker(spd(i), spd(j), power) for k, (i, j) in sides.items()}
    metric["n"] = None
    got = control.myopic(metric).step(Posterior(gradient_mean=mean), None)
    for k, (left, right, _) in ((k, metric[k]) for k in sides):
        powers = [linalg.fractional_matrix_power(x, power) for x in (left, right)]
        want = np.linalg.solve(np.kron(*powers), np.ravel(mean[k]))
        np.testing.assert_allclose(np.ravel(got[k]), want, rtol=1e-10)
    assert got["n"] is None
    # For one array a metric is one product; where it says nothing, there is no step.
    flat = Kronecker(jnp.diag(jnp.asarray([4.0, 0.0])), jnp.eye(3), 1.0)
    got = control.myopic(lambda params: flat).step(Posterior(gradient_mean=np.ones((2, 3))), None)
    np.testing.assert_allclose(got, [[0.25] * 3, [0] * 3], rtol=1e-14)


@pytest.mark.usefixtures("x64")
def test_sign_is_ballistic_on_a_curvature_read_off_the_mean():
    check(control.sign(), np.sign, None, M)
    squares = jax.tree.map(np.square, M)
    want = control.ballistic().step(POSTERIOR._replace(curvature_mean=squares), PARAMS)
    got = control.sign().step(GRADIENT_ONLY, PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-15), got, want)
    zero = Posterior(gradient_mean=jnp.asarray([0.0, -0.0, 1e-300]))
    np.testing.assert_array_equal(control.sign().step(zero, None), [0, 0, 1])


@pytest.mark.usefixtures("x64")
def test_ballistic():
    def direction(m: Any, v: Any, g: Any, eps: float, eps_root: float) -> Any:
        return m / (np.sqrt(g * (np.maximum(v, 0) + eps_root)) + eps)

    check(
        control.ballistic(eps=0.1),
        lambda m, v: direction(m, v, 1, 0.1, 0),
        AT_SADDLE,
        M,
        V,
    )
    check(
        control.ballistic(eps=0.1, eps_root=0.2, metric=G),
        lambda m, v, g: direction(m, v, g, 0.1, 0.2),
        AT_SADDLE,
        M,
        V,
        G,
    )


@pytest.mark.usefixtures("x64")
def test_newton_stays_where_there_is_no_optimum():
    check(control.newton(), lambda m, v: np.where(v > 0, m / v, 0), AT_SADDLE, M, V)
    flat = Posterior(gradient_mean=jnp.ones(1), curvature_mean=jnp.zeros(1))
    policy = control.newton()
    assert policy.clipped is not None
    assert policy.step(flat, None)[0] == 0
    assert policy.clipped(flat, None)[0]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("exact_hold", [False, True])
@pytest.mark.parametrize("metric", [None, G], ids=["identity", "diagonal"])
def test_horizon_takes_the_optimal_step(metric: Any, exact_hold: bool):
    args = dict(rate=0.7, gain=1.9, discount=1.3, time_step=0.8)
    objective = Objective(0.7, 1.9, 1.3, metric=metric)
    policy = control.horizon(objective, 0.8, exact_hold=exact_hold)

    @np.vectorize
    def step(m: float, v: float, g: float) -> float:
        return m * oracles.planning_gain(v, **args, metric=g, exact_hold=exact_hold)

    unclipped = jax.tree.map(lambda v: np.zeros(v.shape, bool), V)
    ones = jax.tree.map(np.ones_like, M)
    np_tree = ones if metric is None else metric
    got = policy.step(POSTERIOR, PARAMS)
    # The Riccati solver's accuracy.
    jax.tree.map(
        lambda a, m, v, g: np.testing.assert_allclose(a, step(m, v, g), rtol=1e-10),
        got,
        M,
        V,
        np_tree,
    )
    assert policy.clipped is not None
    jax.tree.map(np.testing.assert_array_equal, policy.clipped(POSTERIOR, PARAMS), unclipped)


@pytest.mark.usefixtures("x64")
def test_horizon_reports_and_bounds_saddles_too_steep_to_plan_on():
    objective = Objective(0.7, 1.9, 0.5)
    policy = control.horizon(objective, margin=0.1)
    assert policy.clipped is not None
    jax.tree.map(np.testing.assert_array_equal, policy.clipped(POSTERIOR, PARAMS), AT_SADDLE)
    bound = -(1 - 0.1) * 0.5**2 / (4 * 0.7 * 1.9)
    want = 0.5 * oracles.planning_gain(bound, 0.7, 1.9, 0.5, 1.0, 1.0, False)
    np.testing.assert_allclose(policy.step(POSTERIOR, PARAMS)["a"][2], want, rtol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("exact_hold", [False, True])
def test_horizon_without_curvature_is_gradient_descent(exact_hold: bool):
    objective = Objective(0.7, 1.9, 1.3, metric=G)
    policy = control.horizon(objective, 0.8, exact_hold=exact_hold)
    got = policy.step(GRADIENT_ONLY, PARAMS)
    jax.tree.map(
        lambda a, m, g: np.testing.assert_allclose(a, 0.7 * 1.9 * 0.8 / (1.3 * g) * m, rtol=1e-14),
        got,
        M,
        G,
    )
    assert policy.clipped is not None
    assert not np.any(policy.clipped(GRADIENT_ONLY, PARAMS)["a"])


@pytest.mark.usefixtures("x64")
def test_horizon_with_a_floor_plans_on_a_larger_curvature():
    objective = Objective(0.7, 1.9, 0.5)
    floored = POSTERIOR._replace(curvature_mean=jax.tree.map(lambda v: v + 0.3, V))
    for floor in (0.3, jnp.asarray(0.3)):
        got = control.horizon(objective, 0.8, exact_hold=0.4, eps_root=floor)
        want = control.horizon(objective, 0.8, exact_hold=0.4)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14),
            got.step(POSTERIOR, PARAMS),
            want.step(floored, PARAMS),
        )
        assert got.clipped is not None
        assert not np.any(got.clipped(POSTERIOR, PARAMS)["a"])
    # With a floor there is a plan without a discount and a curvature.
    flat = control.horizon(Objective(discount=0.0), eps_root=0.25).step(GRADIENT_ONLY, PARAMS)
    jax.tree.map(lambda a, m: np.testing.assert_allclose(a, 2 * m, rtol=1e-15), flat, M)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("metric", [None, G], ids=["identity", "diagonal"])
def test_named_policies_are_limits_of_the_horizon(metric: Any):
    """Each against the plan far into its limit; the learning rate is that of the table."""
    positive = POSTERIOR._replace(curvature_mean=jax.tree.map(np.abs, V))

    def compare(policy: control.Policy, lr: float, plan: control.Policy, rtol: float) -> None:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(b, lr * a, rtol=rtol),
            policy.step(positive, PARAMS),
            plan.step(positive, PARAMS),
        )

    # Corrections of x / gamma^2 < 1e-9.
    far = control.horizon(Objective(0.7, 1.9, 1e6, metric), 0.8)
    compare(control.myopic(metric), 0.7 * 1.9 * 0.8 / 1e6, far, 1e-9)
    near = control.horizon(Objective(0.7, 1.9, 0.0, metric), 0.8)
    compare(control.ballistic(metric=metric), np.sqrt(0.7 * 1.9) * 0.8, near, 1e-13)
    # Held for e^{-rho dt} < 1e-16.
    held = control.horizon(Objective(0.7, 1.9, 1.3, metric), 1e4, exact_hold=True)
    compare(control.newton(), 1.0, held, 1e-13)


def test_dtype_is_kept():
    single = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), POSTERIOR)
    policies = [
        control.myopic(),
        control.ballistic(1e-8),
        control.newton(),
        control.horizon(Objective(), exact_hold=True),
    ]
    for policy in policies:
        leaves = jax.tree.leaves(policy.step(single, PARAMS))
        assert {x.dtype for x in leaves} == {jnp.dtype(jnp.float32)}


VARIANCE = {"a": np.array([0.3, 2.0, 0.7]), "b": np.array(0.0)}
UNCERTAIN = POSTERIOR._replace(curvature_variance=VARIANCE)


@pytest.mark.usefixtures("x64")
def test_cautious_plans_on_the_root_mean_square_of_the_curvature():
    rms = jax.tree.map(lambda v, s: np.sqrt(v**2 + s), V, VARIANCE)
    for policy in (
        control.horizon(Objective(0.7, 1.9, 0.5)),
        control.ballistic(eps=0.1),
        control.newton(),
        control.myopic(),
    ):
        got = control.cautious(policy)
        want = policy.step(POSTERIOR._replace(curvature_mean=rms), PARAMS)
        jax.tree.map(
            # A handful of float64 roundings.
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13),
            got.step(UNCERTAIN, PARAMS),
            want,
        )
        assert got.clipped is None
    # Where the curvature is certain and positive there is nothing to be cautious about.
    plain, cautious = (
        p.step(UNCERTAIN, PARAMS)["b"]
        for p in (control.newton(), control.cautious(control.newton()))
    )
    np.testing.assert_allclose(cautious, plain, rtol=1e-15)


@pytest.mark.usefixtures("x64")
def test_cautious_steps_are_bounded_by_the_uncertainty_and_downhill():
    v = jnp.linspace(-3, 3, 61)
    posterior = Posterior(jnp.full(61, -1.5), None, v, jnp.full(61, 0.25))
    newton, ballistic = (
        control.cautious(p).step(posterior, None) for p in (control.newton(), control.ballistic())
    )
    assert np.all(newton < 0) and np.all(ballistic < 0)
    # Attained where the curvature is 0; elsewhere steps are shorter.
    np.testing.assert_allclose(np.max(np.abs(newton)), 1.5 / 0.5, rtol=1e-12)
    np.testing.assert_allclose(np.max(np.abs(ballistic)), 1.5 / np.sqrt(0.5), rtol=1e-12)
    nothing = control.cautious(control.newton()).step(
        Posterior(jnp.ones(2), None, jnp.zeros(2), jnp.asarray([jnp.inf, 0.0])), None
    )
    np.testing.assert_array_equal(nothing, 0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["horizon", "held", "ballistic"])
def test_averaged_integrates_over_a_log_normal(name: str):
    """Against adaptive quadrature of the step over the log-normal of that mean and variance."""
    objective = Objective(0.7, 1.9, 0.5)
    policy = {
        "horizon": control.horizon(objective, 0.8),
        "held": control.horizon(objective, 0.8, exact_hold=True),
        "ballistic": control.ballistic(),
    }[name]
    mean, variance = np.array([4.0, 0.25, 1.0, 0.1]), np.array([1.0, 0.05, 0.9, 0.001])
    posterior = Posterior(jnp.full(4, -1.5), None, jnp.asarray(mean), jnp.asarray(variance))
    got = control.averaged(policy, 24).step(posterior, None)

    def step(h: float) -> float:
        if name == "ballistic":
            return -1.5 / np.sqrt(h)
        return -1.5 * oracles.planning_gain(h, 0.7, 1.9, 0.5, 0.8, 1.0, name == "held")

    square = np.log1p(variance / mean**2)
    for x, m, s in zip(got, mean, square, strict=True):
        law: Any = stats.lognorm(np.sqrt(s), scale=m * np.exp(-s / 2))
        np.testing.assert_allclose([law.mean()], [m], rtol=1e-12)
        nodes = np.linspace(-9, 9, 121)
        values = [step(m * np.exp(z * np.sqrt(s) - s / 2)) for z in nodes]
        want = np.sum(stats.norm.pdf(nodes) * values) * (nodes[1] - nodes[0])
        # The trapezoidal rule is exact for such integrands; 24 nodes leave 1e-7 at s = 0.64.
        np.testing.assert_allclose(x, want, rtol=1e-6)
    if name == "ballistic":
        np.testing.assert_allclose(got, -1.5 * mean**-0.5 * np.exp(3 / 8 * square), rtol=1e-6)
    # The gain is convex.
    assert np.all(np.abs(got) > np.abs(policy.step(posterior, None)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("spread", [1e-5, 1e-6, 1e-7])
def test_averaged_over_a_curvature_that_is_nearly_certain_keeps_its_digits(spread: float):
    """E[g/h] = (g - c + ...)/h to first order in the covariance c, in float32."""
    g, c = 1e-3, -0.9 * spread
    one = [jnp.full(1, x, jnp.float32) for x in (g, 1.0, 1.0, spread**2, c)]
    got = control.averaged(control.newton()).step(Posterior(*one), None)
    np.testing.assert_allclose(got, g - c, rtol=1e-4)


@pytest.mark.parametrize("covariance", [-0.6, 0.5])
def test_averaged_takes_the_gradient_along_with_the_curvature(covariance: float):
    """Against draws of both: E[phi(h) g] is not E[phi(h)] m where g and h vary together."""
    both = np.array([[0.5, covariance], [covariance, 0.9]])
    one = [jnp.full(1, x) for x in (0.8, both[0, 0], 1.0, both[1, 1], covariance)]
    posterior = Posterior(*one)
    for policy, gain in (
        (control.ballistic(), lambda h: 1 / np.sqrt(h)),
        (control.horizon(Objective(discount=0.5)), lambda h: 1 / (np.sqrt(1 / 16 + h) + 0.25)),
    ):
        got = control.averaged(policy, 24).step(posterior, None)
        want, error = oracles.averaged_step(
            lambda g, h, gain=gain: gain(h) * g, 0.8, 1.0, both, "log-normal"
        )
        assert abs(float(got[0]) - want) < 5 * error
        # Without the covariance the average is another one, which the draws refute.
        alone = posterior._replace(gradient_curvature_covariance=None)
        assert abs(float(control.averaged(policy, 24).step(alone, None)[0]) - want) > 50 * error


@pytest.mark.usefixtures("x64")
def test_averaged_on_a_positive_secant_is_the_mean_step_of_its_posterior():
    """A secant's covariance reaches the policy: E[phi(h) g] by draws from the truncated law."""
    secant = beliefs.Secant(
        noise_variance=0.2, prior_gradient_variance=1.0, prior_curvature_variance=1.0
    )
    moved, seen = jnp.array([[-0.5], [3.0], [0.0]]), jnp.array([[1.2], [0.6], [jnp.nan]])
    said, positive = (
        filters.last_state(belief, seen, moved).posterior()
        for belief in (secant, beliefs.positive(secant))
    )
    m, a, h, v, c = (float(x[0]) for x in said[:5])
    assert abs(c) > 0.5 * np.sqrt(a * v)
    policy = control.averaged(control.horizon(Objective(discount=0.5)), 24)
    got = float(policy.step(positive, None)[0])
    want, _ = oracles.averaged_step(
        lambda g, h: g / (np.sqrt(1 / 16 + h) + 0.25), m, h, np.array([[a, c], [c, v]]), "truncated"
    )
    alone = float(policy.step(positive._replace(gradient_curvature_covariance=None), None)[0])
    # The rest is that of a log-normal in the place of a truncated normal.
    assert abs(got / want - 1) < 0.01 and abs(alone / want - 1) > 0.08


@pytest.mark.usefixtures("x64")
def test_averaged_takes_what_is_certain_or_not_positive_as_it_is():
    v = jnp.asarray([4.0, -0.1, 0.0, 2.0, 2.0])
    spread = jnp.asarray([0.0, 1.0, 1.0, jnp.inf, jnp.nan])
    posterior = Posterior(jnp.ones(5), None, v, spread)
    policy = control.horizon(Objective(discount=1.3))
    averaged = control.averaged(policy)
    np.testing.assert_allclose(
        averaged.step(posterior, None), policy.step(posterior, None), rtol=1e-14
    )
    assert averaged.clipped is policy.clipped
    slopes = jax.jit(
        jax.grad(lambda v, s: averaged.step(Posterior(jnp.ones(5), None, v, s), None).sum(), (0, 1))
    )(v, spread)
    assert all(np.all(np.isfinite(x)) for x in slopes)


def test_ballistic_makes_no_step_where_the_curvature_is_0():
    """Be it that nothing was seen, or that squares of gradients are too small for float32."""
    mean = jnp.asarray([1e-24, 0.0, 2.0], jnp.float32)
    posterior = Posterior(mean, None, jnp.square(mean))
    np.testing.assert_array_equal(control.ballistic().step(posterior, None), [0.0, 0.0, 1.0])
    planned = control.horizon(Objective(discount=0.0), exact_hold=False)
    np.testing.assert_array_equal(planned.step(posterior, None), [0.0, 0.0, 1.0])


def test_averaged_over_curvatures_of_any_size_is_a_number():
    v = jnp.asarray([1e-30, 1e-20, 1e-3, 1e20, 2e-38])
    posterior = Posterior(jnp.ones(5), None, v, jnp.asarray([1.0, 1e20, 1e-9, 1e38, 1e38]))
    for policy in (control.horizon(Objective()), control.ballistic(), control.ballistic(1e-8)):
        got = control.averaged(policy).step(posterior, None)
        assert got.dtype == jnp.float32
        assert np.all(np.isfinite(got)) and np.all(got > 0)
    # A little uncertainty is not rounded away: E[h^(-1/2)] at the relative variance of 1e-3.
    np.testing.assert_allclose(got[2], 1e-3**-0.5 * np.exp(3 / 8 * 1e-3), rtol=3e-6)


def test_averaged_keeps_the_start_and_refuses_what_it_cannot_average():
    averaged = control.averaged(control.resetting(0.3), 1)
    assert averaged.uses_start
    one = jnp.ones(1)
    posterior = Posterior(one, None, 2 * one, 0 * one)
    np.testing.assert_allclose(
        averaged.step(posterior, one, 0 * one),
        control.resetting(0.3).step(posterior, one, 0 * one),
        rtol=1e-6,
    )
    with pytest.raises(ValueError, match="averaged: num_nodes must be at least 1, got 0"):
        control.averaged(control.newton(), 0)
    for field in ("curvature_mean", "curvature_variance"):
        with pytest.raises(ValueError, match=f"control.averaged with a belief .* no {field}"):
            control.averaged(control.newton()).step(posterior._replace(**{field: None}), one)


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ballistic", "newton"])
def test_belief_without_curvature_is_refused(name: str):
    policy: control.Policy = getattr(control, name)()
    with pytest.raises(ValueError, match=f"control.{name} with a belief .* no curvature_mean"):
        policy.step(GRADIENT_ONLY, PARAMS)


@pytest.mark.parametrize("name", ["myopic", "ballistic", "newton", "horizon", "sign"])
def test_belief_without_gradient_is_refused(name: str):
    policy: control.Policy = (
        control.horizon(Objective()) if name == "horizon" else getattr(control, name)()
    )
    with pytest.raises(ValueError, match=f"control.{name} with a belief .* no gradient_mean"):
        policy.step(Posterior(curvature_mean=V), PARAMS)


def test_callable_metric_is_refused():
    def metric(params: Any) -> Any:
        return params

    with pytest.raises(ValueError, match="control.ballistic with a callable metric"):
        control.ballistic(metric=metric)
    with pytest.raises(ValueError, match="control.horizon with a callable metric"):
        control.horizon(Objective(metric=metric))


@pytest.mark.parametrize("metric", [np.eye(2), np.ones(3), {"a": np.ones(2)}])
def test_metric_of_another_shape_is_not_broadcast(metric: Any):
    belief = Posterior(gradient_mean=jnp.ones(2), curvature_mean=jnp.ones(2))
    for policy in (control.ballistic(metric=metric), control.horizon(Objective(metric=metric))):
        with pytest.raises(ValueError, match="metric must (fit|be like) the parameters"):
            policy.step(belief, jnp.zeros(2))
    if np.shape(metric) != (2, 2):  # which is one over the raveled parameters
        for myopic in (control.myopic(metric), control.myopic(lambda params: metric)):
            with pytest.raises(ValueError, match="The metric must be None, a tree like the param"):
                myopic.step(belief, jnp.zeros(2))


def test_drift_is_refused():
    with pytest.raises(ValueError, match="control.horizon with an objective that has a drift"):
        control.horizon(Objective(drift=lambda params: params))


@pytest.mark.parametrize("discount", [0, 0.0])
def test_ballistic_plan_without_curvature_is_refused(discount: float):
    policy = control.horizon(Objective(discount=discount))
    with pytest.raises(ValueError, match="control.horizon at discount 0 with a belief without"):
        policy.step(GRADIENT_ONLY, PARAMS)


@pytest.mark.parametrize("name", ["eps", "eps_root"])
def test_negative_floors_are_named(name: str):
    with pytest.raises(ValueError, match=f"ballistic: {name} must be"):
        control.ballistic(**{name: -1e-8})


@pytest.mark.parametrize("time_step", [0, -1.0, np.inf])
def test_time_step_must_be_positive(time_step: float):
    with pytest.raises(ValueError, match="horizon: time_step must be"):
        control.horizon(Objective(), time_step)


@pytest.mark.parametrize("field", ["curvature_mean", "curvature_variance", "gradient_mean"])
def test_cautious_refuses_a_belief_without_its_uncertainty(field: str):
    policy = control.cautious(control.horizon(Objective()))
    owner = "horizon" if field == "gradient_mean" else "cautious"
    with pytest.raises(ValueError, match=f"control.{owner} with a belief that has no {field}"):
        policy.step(UNCERTAIN._replace(**{field: None}), PARAMS)


@pytest.mark.usefixtures("x64")
def test_going_to_the_optimum_is_newton_where_the_curvature_is_known():
    belief = beliefs.Optimum(jnp.asarray([0.5, 3.0]), 0.1, 2.0)
    filter_ = belief.filter()
    start = filter_.predict(filter_.init(jnp.zeros(2)), jnp.zeros(2))
    posterior = filter_.update(start, jnp.asarray([1.0, -2.0])).posterior()
    got, want = (p.step(posterior, None) for p in (control.to_optimum(), control.newton()))
    # Newton multiplies by the curvature and divides by it again: float64 round-off.
    np.testing.assert_allclose(got, want, rtol=1e-14)
    with pytest.raises(ValueError, match="control.to_optimum with a belief that has no distance"):
        control.to_optimum().step(beliefs.Posterior(gradient_mean=jnp.ones(2)), None)
