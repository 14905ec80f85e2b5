r"""Movement of the parameters that no optimizer made: learned, and countered.

An optimizer hands out a step u and takes for granted that the parameters are then where it sent
them, at $z = \theta + u$. Something else may move them before the next step: weights of hardware
that lose their charge, a host that decays them, another writer. What it does is seen without any
loss, as the difference between where parameters are found and where they were sent,

$$ d = \theta_{t+1} - z_t = f(z_t) + \text{noise} . $$

`beliefnav.beliefs.drift.elementwise` learns f. The optimizer's own movement, with its decay and its
schedules, is no part of d.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from beliefnav import _trees
from beliefnav._checks import NON_NEGATIVE, UNIT_INTERVAL, refuse_schedule
from beliefnav._format import number
from beliefnav.beliefs.contract import Fact
from beliefnav.beliefs.drift.elementwise import DriftState, ElementwiseDrift
from beliefnav.navigation import check_real, forwarding
from beliefnav.wrappers.contract import check_optimizer, wrapper

__all__ = ["DriftCounteringState", "drift_countering"]

PyTree = Any

DRIFT = ElementwiseDrift(discount=0.999)
"""Weights decay or grow by about 1 % a step or less, and what does it changes slowly."""


class DriftCounteringState(NamedTuple):
    """State of `drift_countering`.

    Attributes:
        inner_state: of the optimizer.
        drift_belief: what was seen of the drift; ``belief.posterior`` reads it.
        sent_params: where the last update sent the parameters, a tree like them, in their dtypes.
        drift_steps: number of updates so far, int32: the first one has nothing to compare with.
    """

    inner_state: Any
    drift_belief: DriftState
    sent_params: PyTree
    drift_steps: Array


def drift_countering_facts(
    belief: ElementwiseDrift = DRIFT, strength: ArrayLike = 1.0, deviations: ArrayLike = 0.0
) -> tuple[Fact, ...]:
    """What `drift_countering` assumes, of the same arguments but the inner optimizer."""
    _check(belief, strength, deviations)
    return (
        *belief.facts(),
        Fact("drift countered", number(strength), "The share that the update makes up for."),
        Fact("drift certainty", f"{number(deviations)} deviations", "Less certain ones are left."),
    )


@wrapper(drift_countering_facts)
def drift_countering(
    inner: optax.GradientTransformation,
    belief: ElementwiseDrift = DRIFT,
    strength: ArrayLike = 1.0,
    deviations: ArrayLike = 0.0,
) -> optax.GradientTransformationExtraArgs:
    r"""Learn how parameters move between updates, and make up for it.

    With w where the optimizer inside would send the parameters, and the posterior mean
    $E[f(z)] = \hat a z + \hat b$, entry by entry, they are sent to the place that drifts to w,

    $$ z + E[f(z)] = w \quad\Rightarrow\quad
       z = w - \frac{\hat a w + \hat b}{1 + \hat a} , \qquad w = \theta + u . $$

    The optimizer inside then works as in a world without drift, with the noise that is left. The
    denominator is no less than a half: what more than halves parameters between two updates is
    countered in part.

    Where nothing drifts the steps are those of the optimizer inside, bit for bit: parameters are
    then found exactly where they were sent, and the mean of a drift that was never seen is exactly
    0. This holds if they are moved as by ``optax.apply_updates``, by a sum in their own dtype. A
    host that keeps them in another way, or a compiler that rounds that sum otherwise than the one
    here, makes differences of a unit in the last place; what the belief makes of these is of the
    same size or less. In half precision, a drift smaller than the rounding of the parameters is
    neither seen nor countered.

    The drift of a parameter at 0 says nothing of its rate, and neither does an entry that is NaN or
    infinite. What is not learned is not countered: its mean is 0. How much is learned is said by
    ``belief.posterior(state.drift_belief).learned``, entry by entry.

    Put it outermost: what stands behind it in a chain changes where parameters are sent, and would
    be taken for a drift, as would be a weight decay by the host that is meant.

    Args:
        inner: any optax optimizer.
        belief: of the drift, in units of time of one update.
        strength: the share of the mean drift that is countered, in [0, 1]; 0 only learns.
        deviations: a drift is countered where its mean is beyond so many of its posterior
            deviations from 0.

    Returns:
        The optimizer; its state is a `DriftCounteringState`.

    Raises:
        ValueError: a number is out of its range; at ``init``, a parameter is no real floating-point
            array; at ``update``, ``params`` is missing.
        TypeError: ``inner`` is no optimizer, ``belief`` no `ElementwiseDrift`, or a number a
            schedule.

    Example:
        Between updates weights lose 1 %. Their minimum is at 1, where gradient descent alone does
        not rest:

        >>> import jax.numpy as jnp, optax
        >>> from beliefnav.wrappers.uncontrolled import DRIFT, drift_countering
        >>> for optimizer in (optax.sgd(0.1), drift_countering(optax.sgd(0.1))):
        ...     params = jnp.zeros(2)
        ...     state = optimizer.init(params)
        ...     for _ in range(200):
        ...         updates, state = optimizer.update(params - 1.0, state, params)
        ...         params = 0.99 * optax.apply_updates(params, updates)
        ...     print([round(x, 3) for x in params.tolist()])
        [0.908, 0.908]
        [1.0, 1.0]
        >>> believed = DRIFT.posterior(state.drift_belief)
        >>> [round(rate, 4) for rate in believed.rate_mean.tolist()]
        [-0.01, -0.01]
    """
    _check(belief, strength, deviations)
    check_optimizer("drift_countering", inner)
    wrapped = forwarding(inner)

    def init(params: PyTree) -> Any:
        check_real(params)
        params = _trees.arrays(params)
        return DriftCounteringState(
            wrapped.init(params),
            belief.init(params),
            _trees.copied(params),
            jnp.zeros((), jnp.int32),
        )

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, Any]:
        if params is None:
            raise ValueError(
                "Cannot update drift_countering without params. This is because it measures how "
                "far they are from where it sent them; call update(gradient, state, params)."
            )
        updates, params = _trees.arrays((updates, params))
        first = state.drift_steps == 0

        def found(now: Array, sent: Array) -> Array:
            dtype = _trees.wide_dtype(now.dtype)
            return _trees.wide(now, dtype) - _trees.wide(sent, dtype)

        moved = jax.tree.map(found, params, state.sent_params)
        learned = jax.tree.map(
            lambda before, after: _trees.select(first, before, after),
            state.drift_belief,
            belief.update(state.drift_belief, state.sent_params, moved),
        )
        steps, inner_state = wrapped.update(updates, state.inner_state, params, **extra_args)
        believed = belief.posterior(learned)
        aims = jax.tree.map(_sum, params, steps)
        drifts, variances = believed.drift(aims), believed.variance(aims)
        rates = believed.rate_mean

        def countered(step: Array, drift: Array, variance: Array, rate: Any) -> Array:
            share = jnp.asarray(strength, drift.dtype)
            known = jnp.abs(drift) > jnp.asarray(deviations, drift.dtype) * jnp.sqrt(variance)
            growth = 1.0 if rate is None else jnp.maximum(1 + rate, 0.5)
            made_up = share * drift / growth
            made_up = jnp.where(known & jnp.isfinite(made_up), made_up, 0)
            return (_trees.wide(step, drift.dtype) - made_up).astype(step.dtype)

        columns, treedef = _trees.aligned_leaves(steps, drifts, variances, rates)
        steps = treedef.unflatten([countered(*column) for column in columns])
        sent = optax.apply_updates(params, steps)
        count: Any = optax.safe_increment(state.drift_steps)
        return steps, DriftCounteringState(inner_state, learned, sent, count)

    return optax.GradientTransformationExtraArgs(init, update)


def _sum(params: Array, step: Array) -> Array:
    """Where a step leads, in float32 or wider."""
    dtype = _trees.wide_dtype(params.dtype)
    return _trees.wide(params, dtype) + _trees.wide(step, dtype)


def _check(belief: Any, strength: Any, deviations: Any) -> None:
    if not isinstance(belief, ElementwiseDrift):
        raise TypeError(
            "drift_countering: belief must be a "
            f"beliefs.drift.elementwise.ElementwiseDrift, got {belief!r}."
        )
    for name, allowed, value in (
        ("strength", UNIT_INTERVAL, strength),
        ("deviations", NON_NEGATIVE, deviations),
    ):
        refuse_schedule("wrappers.uncontrolled.drift_countering", name, value)
        allowed.check_annotated("drift_countering", name, value, float)
