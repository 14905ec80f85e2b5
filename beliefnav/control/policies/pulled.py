r"""Policies that know where the parameters are pulled: by a drift, or by a penalty.

They are optimal for a quadratic loss with the believed gradient $m$ and curvature $V$ at $\theta$,
per entry, with the plan remade continuously:

| policy | believes | velocity |
|---|---|---|
| `countering` | weights decay as $-j\theta$ | $-(\eta k m + j (\gamma + j) \theta) / s_j$ |
| `penalised` | $\tfrac12 \ell (\theta - \theta_0)^2$ belongs to the loss | that of another policy |
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from beliefnav._checks import NON_NEGATIVE, POSITIVE
from beliefnav._format import number
from beliefnav._trees import wide
from beliefnav.beliefs import Posterior
from beliefnav.control.gains.kronecker import is_kronecker
from beliefnav.control.policies.contract import MEANS, Plan, Policy, required
from beliefnav.objective import is_like

__all__ = ["countering", "given", "negative", "penalised"]

PyTree = Any


def countering(decay: ArrayLike, discount: ArrayLike = 0.0, eps_root: ArrayLike = 0.0) -> Policy:
    r"""Plan for weight decay $f = -j\theta$: the velocity of control and drift together.

    $$ \dot\theta = - \frac{m + j (\gamma + j) \theta}{s_j}, \qquad
       s_j = \sqrt{(\gamma/2 + j)^2 + V} + \gamma/2 , $$

    with time in units in which $\eta k = 1$. It rests at $V\theta^* / (V + j (j + \gamma))$: what
    is curved is held against the decay, what is flat decays. AdamW adds $-j\theta$ to a plan that
    does not know of it.

    Args:
        decay: $j > 0$.
        discount: $\gamma \ge 0$.
        eps_root: a floor on the curvature.

    Returns:
        The policy; its learning rate is the time step.

    Raises:
        ValueError: a number is out of its range, as far as it is known; the error names it.

    Reference:
        The LQ policy (`beliefnav.control.gains.lq.diagonal_lq_policy`) in closed form.

    Example:
        Where the gradient vanishes, a flat weight decays and a curved one is held.

        >>> import jax.numpy as jnp
        >>> from beliefnav import Posterior, control
        >>> belief = Posterior(jnp.zeros(2), curvature_mean=jnp.array([0.0, 100.0]))
        >>> direction = control.countering(decay=0.1).step(belief, jnp.ones(2))
        >>> [round(x, 3) for x in direction.tolist()]
        [0.1, 0.001]
    """
    POSITIVE.check("countering", "decay", decay)
    NON_NEGATIVE.check("countering", "discount", discount)
    NON_NEGATIVE.check("countering", "eps_root", eps_root)

    def step(posterior: Posterior, params: PyTree) -> PyTree:
        mean = required(posterior, "gradient_mean", "countering")
        curvature = required(posterior, "curvature_mean", "countering")
        j, half = jnp.asarray(decay), jnp.asarray(discount) / 2

        def leaf(m: Array, v: Array, theta: Array) -> Array:
            s = jnp.sqrt((half + j) ** 2 + jnp.maximum(v, 0) + eps_root) + half
            return (m + j * (2 * half + j) * wide(theta, m.dtype)) / s

        return jax.tree.map(leaf, mean, curvature, given(params, "countering"))

    drift = f"decay {number(decay)} per unit of time"
    plan = Plan(discount, floor=eps_root, drift=drift)
    return Policy(step, negative, plan, reads=MEANS)


def penalised(policy: Policy, strength: ArrayLike, *, around_start: bool = True) -> Policy:
    r"""Add a penalty that is known, $\tfrac12 \ell \, |\theta - \theta_0|^2$, to the loss.

    The mean of the gradient is larger by $\ell (\theta - \theta_0)$ and the curvature by $\ell$; a
    belief without curvature is taken as flat. As a belief, the penalty is a Gaussian prior on the
    optimum, of precision $\ell$.

    Args:
        policy: what to do then.
        strength: $\ell \ge 0$, in units of the curvature.
        around_start: $\theta_0$ is where the parameters started (L2-Init); otherwise 0 (L2).

    Returns:
        The policy.

    Raises:
        ValueError: ``strength`` is a negative Python number; when it is used, the curvature is
            neither a tree like the parameters nor a matrix.

    Example:
        The loss has its optimum at -1, the penalty at 0, and they are curved alike.

        >>> import jax.numpy as jnp
        >>> from beliefnav import Posterior, control
        >>> policy = control.penalised(control.newton(), strength=1.0, around_start=False)
        >>> params = jnp.array(1.0)
        >>> float(params - policy.step(Posterior(jnp.array(2.0), None, jnp.array(1.0)), params))
        -0.5
    """
    NON_NEGATIVE.check("penalised", "strength", strength)

    def step(posterior: Posterior, params: PyTree, start: PyTree = None) -> PyTree:
        mean = required(posterior, "gradient_mean", "penalised")
        moved = given(params, "penalised")
        if around_start:
            moved = jax.tree.map(jnp.subtract, params, start)
        pulled = jax.tree.map(lambda m, x: m + strength * wide(x, m.dtype), mean, moved)
        curvature = _stiffened(posterior.curvature_mean, strength, mean)
        known = posterior._replace(gradient_mean=pulled, curvature_mean=curvature)
        return policy.step(known, *((params, start) if policy.uses_start else (params,)))

    def clipped(posterior: Posterior, params: PyTree) -> PyTree:
        mean, curvature = posterior.gradient_mean, posterior.curvature_mean
        known = posterior._replace(curvature_mean=_stiffened(curvature, strength, mean))
        return policy.clipped and policy.clipped(known, params)

    where = "the initial parameters" if around_start else "0"
    remark = (
        f"The loss has a known penalty of strength {number(strength)} on the distance from {where}."
    )
    plan = policy.plan and policy.plan._replace(remarks=(*policy.plan.remarks, remark))
    counted = None if policy.clipped is None else clipped
    starts = around_start or policy.uses_start
    return policy._replace(step=step, clipped=counted, plan=plan, uses_start=starts)


def _stiffened(curvature: Any, strength: ArrayLike, params: PyTree) -> Any:
    r"""$V + \ell I$."""
    if curvature is None:
        return jax.tree.map(lambda p: jnp.full_like(p, strength), params)
    if is_like(curvature, params):
        return jax.tree.map(lambda v: v + strength, curvature)
    if is_kronecker(curvature):
        raise ValueError(
            "Cannot use control.penalised with a Kronecker product. This is because a sum with the "
            "identity is not one; give the policy an eps_root."
        )
    return curvature + strength * jnp.eye(len(curvature), dtype=curvature.dtype)


# --- for beliefnav.control.policies.switching ---------------------------------------------------


def negative(posterior: Posterior, params: PyTree) -> PyTree:
    """Where the curvature is negative: it is read as 0."""
    del params
    return jax.tree.map(lambda v: v < 0, posterior.curvature_mean)


def given(params: PyTree, policy: str) -> PyTree:
    """The parameters, which a policy cannot do without."""
    if params is None:
        raise ValueError(
            f"Cannot use control.{policy} without params. This is because its step depends on "
            "where they are; call update(gradient, state, params)."
        )
    return params
