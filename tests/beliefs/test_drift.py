"""Beliefs about a drift: against normal equations in extended precision, and against NUTS."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beliefnav import Objective, control
from beliefnav.beliefs.drift.coupled import CoupledDrift
from beliefnav.beliefs.drift.elementwise import ElementwiseDrift
from beliefnav.control.gains.lq import diagonal_lq_policy
from tests import oracles

STEPS = 40
RNG = np.random.default_rng(3)
SENT = RNG.normal(size=(STEPS, 3))
MATRIX = RNG.normal(size=(3, 3))
OFFSET = np.array([0.5, -1.0, 0.0])
MOVED = SENT @ MATRIX.T + OFFSET + 0.1 * RNG.normal(size=(STEPS, 3))
GAPS = np.where(RNG.random(MOVED.shape) < 0.2, np.nan, MOVED)


def filtered(belief: Any, sent: Any, moved: Any, time_step: float = 1.0) -> Any:
    """The posterior after all steps, in one scan."""

    def step(state: Any, reading: Any) -> Any:
        return belief.update(state, *reading, time_step), None

    readings = jnp.asarray(sent), jnp.asarray(moved)
    state = belief.init(readings[0][0])
    state = jax.jit(lambda s, r: jax.lax.scan(step, s, r)[0])(state, readings)
    return belief.posterior(state)


# --- against the normal equations ---------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("discount", [1.0, 0.9])
@pytest.mark.parametrize("degrees", [1.0, 5.0])
@pytest.mark.parametrize("scales", [(0.7, None), (None, 0.4), (0.7, 0.4)])
def test_a_drift_of_every_entry_is_its_regression(
    scales: tuple[Any, Any], degrees: float, discount: float
) -> None:
    """To 1e-8: the oracle squares what the filter rotates. Entries are missing."""
    belief = ElementwiseDrift(*scales, 0.3, degrees, discount)
    believed = filtered(belief, SENT, GAPS, 0.5)
    for i in range(3):
        columns = [c for c, s in zip((SENT[:, i], np.ones(STEPS)), scales, strict=True) if s]
        there = [s for s in scales if s]
        rows = np.stack(columns, 1)
        want = oracles.learned_drift(rows, GAPS[:, i], there, 0.3, degrees, discount, 0.5)
        means = [m[i] for m in (believed.rate_mean, believed.offset_mean) if m is not None]
        np.testing.assert_allclose(means, want.mean, rtol=1e-8)
        pairs = believed.rate_variance, believed.offset_variance
        variances = [v[i] for v in pairs if v is not None]
        np.testing.assert_allclose(variances, np.diag(want.covariance), rtol=1e-8)
        np.testing.assert_allclose(believed.noise_variance[i], want.noise_variance, rtol=1e-8)
        np.testing.assert_allclose(believed.degrees_of_freedom[i], want.degrees_of_freedom)
        shares = 1 - np.diag(want.covariance) / np.square(there)
        np.testing.assert_allclose(believed.learned[i], np.clip(shares.mean(), 0, 1), atol=1e-8)
        point = np.array([v for v, s in zip((2.0, 1.0), scales, strict=True) if s])
        at = jnp.full(3, 2.0)
        np.testing.assert_allclose(believed.drift(at)[i], point @ want.mean, rtol=1e-8)
        spread = point @ want.covariance @ point
        np.testing.assert_allclose(believed.variance(at)[i], spread, rtol=1e-8)
    assert (believed.rate_offset_covariance is None) == (None in scales)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("discount", [1.0, 0.9])
@pytest.mark.parametrize("offset", [None, 0.4])
def test_a_coupled_drift_is_a_regression_of_every_row(offset: Any, discount: float) -> None:
    belief = CoupledDrift(0.7, offset, 0.3, 5.0, discount)
    believed = filtered(belief, SENT, GAPS, 0.5)
    rows = SENT if offset is None else np.column_stack([SENT, np.ones(STEPS)])
    scales = [0.7] * 3 + ([] if offset is None else [offset])
    at = np.array([2.0, -1.0, 0.5] + ([] if offset is None else [1.0]))
    for i in range(3):
        want = oracles.learned_drift(rows, GAPS[:, i], scales, 0.3, 5.0, discount, 0.5)
        np.testing.assert_allclose(believed.matrix_mean[i], want.mean[:3], rtol=1e-8)
        if believed.offset_mean is not None:
            np.testing.assert_allclose(believed.offset_mean[i], want.mean[3], rtol=1e-8)
        np.testing.assert_allclose(believed.covariance[i], want.covariance, atol=1e-9)
        np.testing.assert_allclose(believed.noise_variance[i], want.noise_variance, rtol=1e-8)
        np.testing.assert_allclose(believed.drift(jnp.asarray(at[:3]))[i], at @ want.mean)
        spread = at @ want.covariance @ at
        np.testing.assert_allclose(believed.variance(jnp.asarray(at[:3]))[i], spread, rtol=1e-8)


@pytest.mark.usefixtures("x64")
def test_a_tree_is_its_raveled_entries() -> None:
    def tree(x: Any) -> Any:
        return {"a": jnp.asarray(x[:1]), "b": jnp.asarray(x[1:])}

    belief = CoupledDrift()
    flat, state = belief.init(jnp.zeros(3)), belief.init(tree(np.zeros(3)))
    for sent, moved in zip(SENT, MOVED, strict=True):
        flat = belief.update(flat, jnp.asarray(sent), jnp.asarray(moved))
        state = belief.update(state, tree(sent), tree(moved))
    jax.tree.map(np.testing.assert_array_equal, flat, state)
    drift = belief.posterior(state).drift(tree(SENT[0]))
    np.testing.assert_allclose(drift["b"], (MATRIX @ SENT[0] + OFFSET)[1:], atol=0.2)


# --- digits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [1e-1, 1e-4])
def test_float32_resolves_a_rate_and_an_offset_where_parameters_hardly_move(spread: float) -> None:
    """Sums of squares would not: the determinant of theirs is below its rounding at 1e-4.

    A rate is known to about the rounding of a reading, 1e-8 here, over the spread.
    """
    rng = np.random.default_rng(0)
    sent: Any = np.float32(1 + spread * rng.normal(size=(400, 1)))
    found: Any = np.float32(sent * np.float64(0.995) + 2e-3)
    believed = filtered(ElementwiseDrift(0.1, 0.1), sent, found - sent)
    error = abs(float(believed.rate_mean[0]) + 5e-3)
    assert error < 3e-8 / spread
    np.testing.assert_allclose(believed.drift(jnp.ones(1)), -3e-3, atol=2e-7)


def test_what_never_moves_has_no_drift_at_all() -> None:
    """Exactly, whatever is visited, and its deviation is not below what rounding lets one see."""
    sent: Any = np.float32(SENT)
    for belief in (ElementwiseDrift(0.1, 0.1), ElementwiseDrift(), CoupledDrift()):
        believed = filtered(belief, sent, np.zeros_like(sent))
        assert not np.any(believed.drift(jnp.asarray(sent[0])))
        # Readings of size 1 have a spacing of 6e-8 to 2e-7; 40 of them settle a rate to sqrt(40).
        spread = np.sqrt(believed.variance(jnp.ones(3)))
        assert (spread > 1e-9).all() and (spread < 1e-7).all()


# --- what is not learned ------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("noise", [1e-6, 1.0])
def test_a_direction_that_was_not_visited_stays_at_the_prior(noise: float) -> None:
    """However small or large the noise turned out to be: to rounding."""
    rng = np.random.default_rng(1)
    sent = np.outer(rng.normal(size=STEPS), [1.0, 1.0, 0.0])
    moved = sent @ MATRIX.T + noise * rng.normal(size=sent.shape)
    belief = CoupledDrift(0.7, 0.4)
    believed = filtered(belief, sent, moved)
    shares, directions = believed.learned()
    assert shares.shape == (3, 4) and directions.shape == (3, 4, 4)
    unvisited = np.array([[1.0, -1.0, 0, 0], [0, 0, 1, 0]]) / np.array([[math.sqrt(2)], [1]])
    for i in range(3):
        np.testing.assert_allclose(shares[i, :2], 0, atol=1e-9)
        assert (shares[i, 2:] > 0.5).all()
        projected = directions[i, :2] @ unvisited.T
        np.testing.assert_allclose(np.linalg.svd(projected)[1], 1, atol=1e-9)
        along = unvisited @ believed.covariance[i] @ unvisited.T
        np.testing.assert_allclose(along, 0.7**2 * np.eye(2), atol=1e-9)
        difference = believed.matrix_mean[i] @ unvisited[:, :3].T
        np.testing.assert_allclose(difference, 0, atol=1e-7)


@pytest.mark.usefixtures("x64")
def test_entries_at_zero_say_nothing_of_their_rate() -> None:
    sent = SENT * np.array([1.0, 0.0, 1.0])
    believed = filtered(ElementwiseDrift(0.3), sent, 0.1 * sent)
    np.testing.assert_array_equal(believed.learned > 0.99, [True, False, True])
    assert believed.learned[1] < 1e-12 and believed.rate_mean[1] == 0
    np.testing.assert_allclose(believed.rate_variance[1], 0.3**2)


def test_readings_age_and_a_change_is_followed() -> None:
    sent = np.ones((200, 1), np.float32)
    rates = np.where(np.arange(200) < 100, -0.01, 0.02)[:, None]
    moved = np.float32(rates * sent)
    recent, whole = (
        filtered(ElementwiseDrift(discount=b), sent, moved).rate_mean[0] for b in (0.9, 1.0)
    )
    np.testing.assert_allclose(recent, 0.02, atol=1e-5)
    np.testing.assert_allclose(whole, 0.005, atol=1e-4)


# --- transformations ----------------------------------------------------------------------------


@pytest.mark.parametrize("belief", [ElementwiseDrift(0.1, 0.1), ElementwiseDrift(), CoupledDrift()])
def test_it_is_a_pytree_that_is_vmapped_and_differentiated(belief: Any) -> None:
    sent, moved = jnp.float32(SENT), jnp.float32(MOVED)

    def drift(scale: Any, moved: Any) -> Any:
        own = belief.__class__(**(vars(belief) | {"rate_scale": scale}))
        state = own.init(sent[0])
        for x, d in zip(sent[:5], moved[:5], strict=True):
            state = own.update(state, x, d)
        return own.posterior(state).drift(sent[5])

    batch = jax.vmap(drift, (None, 0))(0.3, jnp.stack([moved, -moved]))
    np.testing.assert_allclose(batch[0], -batch[1], rtol=1e-3, atol=1e-5)
    slope = jax.grad(lambda s: jnp.sum(drift(s, moved)))(0.3)
    above, below = (jnp.sum(drift(0.3 + h, moved)) for h in (0.01, -0.01))
    np.testing.assert_allclose(slope, (above - below) / 0.02, rtol=0.05, atol=5e-3)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_believed_in_float32(dtype: Any) -> None:
    """And the rounding of the parameters, not of the belief, bounds what is known."""
    belief = ElementwiseDrift()
    sent = jnp.full(2, 0.75, dtype)
    state = belief.init(sent)
    for _ in range(20):
        state = belief.update(state, sent, jnp.zeros_like(sent))
    believed = belief.posterior(state)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(state))
    # 20 readings, and the prior's one: 20/20 of the variance of rounding.
    rounding = float(jnp.finfo(dtype).eps) / 2 / math.sqrt(12)
    np.testing.assert_allclose(jnp.sqrt(believed.noise_variance), rounding, rtol=0.01)


def test_empty_places_pass_through() -> None:
    belief = ElementwiseDrift(0.1, 0.1)
    params: Any = {"w": jnp.ones(2), "still": None}
    state = belief.update(belief.init(params), params, params)
    assert belief.posterior(state).drift(params)["still"] is None
    assert belief.posterior(belief.init({})).drift({}) == {}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"rate_scale": None}, "nothing drifts"),
        ({"rate_scale": -1.0}, "rate_scale must be a positive"),
        ({"discount": 0.0}, r"discount must be in \(0, 1\]"),
        ({"noise_degrees_of_freedom": 0.0}, "noise_degrees_of_freedom must be a positive"),
    ],
)
def test_what_cannot_be_is_refused_by_name(arguments: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ElementwiseDrift(**arguments)


# --- the program --------------------------------------------------------------------------------


def test_no_program_is_written_of_a_drift_that_ages() -> None:
    with pytest.raises(ValueError, match=r"set discount=1\.0"):
        ElementwiseDrift(discount=0.9).numpyro_model(SENT, MOVED)


@pytest.mark.slow
@pytest.mark.usefixtures("x64", "rank_promotion")
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("kind", ["elementwise", "coupled"])
def test_nuts_on_the_program_finds_the_posterior(kind: str, known: bool) -> None:
    """Within its Monte Carlo error; with unknown noise, whose estimate is taken as known, nearly.

    4,000 draws: means to 5 standard errors (0.08 deviations), deviations to 6 %. That of a
    Student-t exceeds its scale by sqrt(nu / (nu - 2)), 3 % here.
    """
    from numpyro.infer import MCMC, NUTS

    noise = {"noise_scale": 0.1, "noise_degrees_of_freedom": math.inf if known else 1.0}
    if kind == "elementwise":
        belief: Any = ElementwiseDrift(1.0, 1.0, **noise)
        moved = SENT * np.diag(MATRIX) + OFFSET + 0.1 * RNG.normal(size=SENT.shape)
    else:
        belief, moved = CoupledDrift(1.0, 1.0, **noise), GAPS
    sampler = MCMC(NUTS(belief.numpyro_model), num_warmup=500, num_samples=4000, progress_bar=False)
    sampler.run(jax.random.key(0), jnp.asarray(SENT), jnp.asarray(moved))
    draws, believed = sampler.get_samples(), filtered(belief, SENT, moved)
    if kind == "elementwise":
        names = {
            "rate": (believed.rate_mean, believed.rate_variance),
            "offset": (believed.offset_mean, believed.offset_variance),
        }
    else:
        diagonal = np.diagonal(believed.covariance, axis1=1, axis2=2)
        names = {
            "matrix": (believed.matrix_mean, diagonal[:, :3]),
            "offset": (believed.offset_mean, diagonal[:, 3]),
        }
    for name, (mean, variance) in names.items():
        deviation = np.sqrt(np.asarray(variance))
        error = np.abs(draws[name].mean(0) - mean) / deviation
        assert error.max() < 0.1, (name, error)
        slack = 0.06 if known else 0.12
        np.testing.assert_allclose(draws[name].std(0), deviation, rtol=slack)


# --- certainty equivalence ----------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_the_policy_of_a_learned_drift_is_that_of_the_drift() -> None:
    """On readings without noise, to 1e-6; without any, it is that of no drift."""
    hessian, minimum = jnp.diag(jnp.array([1.0, 2.0, 3.0])), jnp.array([0.0, -0.5, 1.0])
    clean = SENT @ MATRIX.T + OFFSET
    belief = CoupledDrift()

    def policy(drift: Any) -> Any:
        return control.lq_policy(Objective(discount=0.5, drift=drift), hessian, minimum)

    known = policy(lambda x: jnp.asarray(MATRIX) @ x + jnp.asarray(OFFSET))
    learned = policy(filtered(belief, SENT, clean).drift)
    np.testing.assert_allclose(learned.closed_loop, known.closed_loop, atol=1e-6)
    np.testing.assert_allclose(learned.equilibrium, known.equilibrium, atol=1e-6)
    unseen = policy(belief.posterior(belief.init(minimum)).drift)
    np.testing.assert_allclose(unseen.closed_loop, policy(None).closed_loop, atol=1e-9)
    one = ElementwiseDrift(1.0, 1.0)
    diagonal = filtered(one, SENT, SENT * np.diag(MATRIX) + OFFSET)
    for_all = diagonal_lq_policy(
        Objective(discount=0.5, drift=diagonal.drift), jnp.diag(hessian), minimum
    )
    exact = policy(lambda x: jnp.diag(jnp.asarray(MATRIX)) * x + jnp.asarray(OFFSET))
    np.testing.assert_allclose(for_all.equilibrium, exact.equilibrium, atol=1e-6)
