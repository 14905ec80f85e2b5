r"""The exact policy for a quadratic loss and a linear drift (LQ), and its value.

With loss $g^\top\delta + \tfrac12 \delta^\top H \delta$ and drift $f = b + A\delta$, where
$\delta = \theta - c$ is the distance from an expansion point $c$, the value of the discounted
problem is quadratic, $V = \tfrac12 \delta^\top P \delta + s_c^\top \delta + \mathrm{const}$, and

$$ \gamma P = k H + P A + A^\top P - \eta P G^{-1} P, \qquad
   (\gamma I - F^\top) s_c = k g + P b, \qquad
   \dot\theta = F \delta + b - \eta G^{-1} s_c, $$

with the closed loop $F = A - \eta G^{-1} P$. Of the solutions $P$ it is the stabilising one:
$\delta \, e^{-\gamma t / 2}$ vanishes, $\operatorname{Re} \lambda(F) < \gamma / 2$, which does not
mean that $\delta$ does. It is the optimum among the policies that do so; where the loss is flat and
the drift grows faster than $\gamma / 2$, letting go would cost less.

Special cases for scalar $H = h$ and $G = 1$: without a drift the rate of approach is
$\sqrt{\gamma^2/4 + \eta k h} - \gamma/2$; a rotation of frequency $q$ makes it a spiral of the same
decay around $\eta k h / (\eta k h + q^2 - i q \gamma) \, \theta^*$ (in the complex plane); weight
decay $f = -j\theta$ makes the rate $\sqrt{\gamma^2/4 + \eta k h + j(j+\gamma)} - \gamma/2$ and the
equilibrium $\eta k h / (\eta k h + j(j+\gamma)) \, \theta^*$.

Reference:
    Vastola, Gershman, Rajan, arXiv:2510.26997, Section 4 and Figures 2 and 3. Discount, drift and
    metric together go beyond it, and the sign of $j\gamma$ is opposite to that of its notebook.
"""

import enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from beliefnav._checks import check_symmetric, is_concrete
from beliefnav._trees import is_function
from beliefnav.control._arrays import check_like, is_positive, is_symmetric, ravel
from beliefnav.control.gains._riccati import riccati
from beliefnav.control.gains.scalar import decay_fraction
from beliefnav.objective import Loss, Objective, check_metric, is_like, metric_matrix

__all__ = [
    "DiagonalLQPolicy",
    "LQPolicy",
    "LQStatus",
    "QuadraticValue",
    "diagonal_lq_policy",
    "lq_policy",
    "quadratic_value",
]

PyTree = Any


class LQStatus(enum.IntEnum):
    """Whether `lq_policy` found the policy."""

    SOLVED = 0
    """It did."""
    NO_STABILISING_SOLUTION = 1
    """The discounted problem is unbounded below, or at the edge of it: the curvature is too
    negative for the discount, or no direction of it is curved, discounted or drifting."""
    METRIC_NOT_POSITIVE = 2
    """The metric is not symmetric positive definite."""
    HESSIAN_NOT_SYMMETRIC = 3
    """The Hessian of the loss is not symmetric, or not finite."""
    DRIFT_NOT_DIAGONAL = 4
    """A drift given to `diagonal_lq_policy` couples entries; use `lq_policy`."""


class LQPolicy(NamedTuple):
    r"""The optimal policy of a quadratic loss and a linear drift; all NaN where there is none.

    Vectors and matrices are over the n raveled parameters.

    Attributes:
        center: $c$, the point of expansion, a tree like the parameters.
        quadratic: $P$ [n, n] of the value $\tfrac12 \theta^\top P \theta + s^\top \theta$ + const.
        linear: $s$ [n].
        closed_loop: $F = A - \eta G^{-1} P$ [n, n].
        equilibrium: where the policy is at rest, a tree; $c$ if it is so there, else not finite if
            $F$ is singular. It attracts only if $F$ is stable.
        center_velocity: $\dot\theta$ at $c$ [n].
        status: an `LQStatus`, int32.
    """

    center: PyTree
    quadratic: Array
    linear: Array
    closed_loop: Array
    equilibrium: PyTree
    center_velocity: Array
    status: Array

    def velocity(self, params: PyTree) -> PyTree:
        r"""$\dot\theta$ at ``params``."""
        center, unravel = ravel_pytree(self.center)
        distance = ravel_pytree(params)[0] - center
        return unravel(self.closed_loop @ distance + self.center_velocity)

    def path(self, start: PyTree, times: ArrayLike) -> PyTree:
        """The path of the policy from ``start``, by a matrix exponential.

        Args:
            start: parameters at time 0.
            times: [time].

        Returns:
            A tree of arrays [time, ...].
        """
        center, unravel = ravel_pytree(self.center)
        distance = ravel_pytree(start)[0] - center
        # Affine motion is linear in one more coordinate, also where F is singular.
        n = len(center)
        generator = jnp.zeros((n + 1, n + 1), self.closed_loop.dtype)
        generator = generator.at[:n, :n].set(self.closed_loop).at[:n, n].set(self.center_velocity)
        extended = jnp.append(distance, jnp.ones((), distance.dtype))

        def at(time: Array) -> PyTree:
            return unravel(center + (jax.scipy.linalg.expm(time * generator) @ extended)[:n])

        return jax.vmap(at)(jnp.asarray(times, distance.dtype))


class DiagonalLQPolicy(NamedTuple):
    """`LQPolicy` of a diagonal problem, entry by entry: every field is a tree like the parameters.

    Attributes:
        center: see `LQPolicy`, as are the others; entries without a stabilising solution are NaN.
        quadratic: the diagonal of P.
        linear: s.
        closed_loop: the diagonal of F: minus the rate of approach.
        equilibrium: where the policy is at rest.
        center_velocity: velocity at the center.
        status: the `LQStatus` of the worst entry, int32.
    """

    center: PyTree
    quadratic: PyTree
    linear: PyTree
    closed_loop: PyTree
    equilibrium: PyTree
    center_velocity: PyTree
    status: Array

    def velocity(self, params: PyTree) -> PyTree:
        r"""$\dot\theta$ at ``params``."""
        return jax.tree.map(
            lambda f, v, x, c: f * (x - c) + v,
            self.closed_loop,
            self.center_velocity,
            params,
            self.center,
        )

    def path(self, start: PyTree, times: ArrayLike) -> PyTree:
        """The path of the policy from ``start`` at ``times`` [time]: a tree [time, ...]."""

        def at(time: Array) -> PyTree:
            return jax.tree.map(
                lambda x, f, v: x + time * decay_fraction(-f * time) * v,
                start,
                self.closed_loop,
                self.velocity(start),
            )

        return jax.vmap(at)(jnp.asarray(times))


def lq_policy(
    objective: Objective, hessian: ArrayLike, center: PyTree, gradient: PyTree = None
) -> LQPolicy:
    r"""The optimal policy for a quadratic loss and a linear drift (see the module docstring).

    A drift that is not linear and a metric that is not constant are taken to first and zeroth order
    at ``center``: the policy is then that of the local problem. Pure; differentiable any number of
    times, and vmapped, in whatever is an array.

    Args:
        objective: the constants, metric and drift.
        hessian: $H$ [n, n] over the raveled parameters, symmetric; it may be indefinite.
        center: $c$, a tree; the minimum $\theta^*$ unless there is a gradient.
        gradient: $g$ of the loss at the center, a tree like it; zero by default.

    Returns:
        The policy, all NaN unless its status is ``SOLVED``.

    Raises:
        ValueError: shapes do not fit, the Hessian is not symmetric, or the metric not symmetric
            positive definite (as far as they are known by then).

    Example:
        >>> import jax.numpy as jnp
        >>> from beliefnav import Objective, control
        >>> def rotation(x):
        ...     return 10.0 * jnp.array([-x[1], x[0]])
        >>> policy = control.lq_policy(
        ...     Objective(discount=0.0, drift=rotation), 4 * jnp.eye(2), jnp.array([0.0, -0.5]))
        >>> spiral_trap = jnp.array([0.0, -0.0192308])  # away from the minimum
        >>> bool(jnp.allclose(policy.equilibrium, spiral_trap, atol=1e-6))
        True
    """
    owner = "lq_policy"
    check_metric(owner, objective, center)
    flat, unravel = ravel(center)
    slope = jnp.zeros_like(flat)
    if gradient is not None:
        check_like(owner, "gradient", gradient, center)
        slope = ravel(gradient)[0]
    n = flat.size
    if jnp.shape(hessian) != (n, n):
        raise ValueError(
            f"{owner}: hessian must have shape {(n, n)} to fit center, got {jnp.shape(hessian)}."
        )
    if is_concrete(hessian):
        check_symmetric(owner, "hessian", "H", hessian)
    h = jnp.asarray(hessian, flat.dtype)
    metric = metric_matrix(objective, center).astype(flat.dtype)
    drift, drift_matrix = jnp.zeros_like(flat), jnp.zeros_like(h)
    if objective.drift is not None:
        f = objective.drift

        def raveled(x: Array) -> Array:
            return ravel_pytree(f(unravel(x)))[0]

        drift, drift_matrix = raveled(flat), jax.jacfwd(raveled)(flat)

    identity = jnp.eye(n, dtype=flat.dtype)
    mobility = objective.rate * jnp.linalg.inv((metric + metric.T) / 2)
    p = riccati(
        drift_matrix - jnp.asarray(objective.discount) / 2 * identity,
        mobility,
        objective.gain * (h + h.T) / 2,
    )
    loop = drift_matrix - mobility @ p
    s = jnp.linalg.solve(objective.discount * identity - loop.T, objective.gain * slope + p @ drift)
    center_velocity = drift - mobility @ s
    at_rest = jnp.all(center_velocity == 0)
    equilibrium = jnp.where(
        at_rest, flat, flat - jnp.linalg.solve(jnp.where(at_rest, identity, loop), center_velocity)
    )
    status = _status(
        {
            LQStatus.METRIC_NOT_POSITIVE: ~is_positive(metric),
            LQStatus.HESSIAN_NOT_SYMMETRIC: ~is_symmetric(h),
            LQStatus.NO_STABILISING_SOLUTION: ~jnp.all(jnp.isfinite(p)),
        }
    )
    solved = status == LQStatus.SOLVED
    p, s, loop, equilibrium, center_velocity = (
        jnp.where(solved, x, jnp.nan) for x in (p, s, loop, equilibrium, center_velocity)
    )
    return LQPolicy(
        center=center,
        quadratic=p,
        linear=s - p @ flat,
        closed_loop=loop,
        equilibrium=unravel(equilibrium),
        center_velocity=center_velocity,
        status=status,
    )


def diagonal_lq_policy(
    objective: Objective, curvature: PyTree, center: PyTree, gradient: PyTree = None
) -> DiagonalLQPolicy:
    r"""`lq_policy` for problems without coupling, in closed form, elementwise on trees.

    With $a$ the derivative of the drift and $x = \eta k h / G$,

    $$ r = \sqrt{(a - \gamma/2)^2 + x}, \qquad F = \tfrac{\gamma}{2} - r
       = -\frac{a (a - \gamma) + x}{r + \gamma/2}, \qquad \frac{\eta P}{G} = a - F . $$

    One fused pass over parameters of any size.

    Args:
        objective: the constants, diagonal metric, and a drift whose every entry depends on that
            entry of the parameters alone (weight decay, for example).
        curvature: $h$, a tree like ``center``; it may be negative.
        center: $c$, a tree; the minimum unless there is a gradient.
        gradient: of the loss at the center, a tree like it; zero by default.

    Returns:
        The policy. Entries without a stabilising solution are NaN, and the status says so.

    Raises:
        ValueError: shapes do not fit, the metric is a matrix, or it is not positive (as far as it
            is known by then).
    """
    owner = "diagonal_lq_policy"
    check_metric(owner, objective, center)
    check_like(owner, "curvature", curvature, center)
    if gradient is not None:
        check_like(owner, "gradient", gradient, center)
    zero = jax.tree.map(jnp.zeros_like, center)
    metric = objective.metric(center) if is_function(objective.metric) else objective.metric
    metric = jax.tree.map(jnp.ones_like, center) if metric is None else metric
    if not is_like(metric, center):
        raise ValueError(
            "Cannot use diagonal_lq_policy with a metric that is a matrix. This is because it "
            "works entry by entry; use lq_policy."
        )
    drift, derivative, coupled = zero, zero, jnp.array(False)
    if objective.drift is not None:
        drift, derivative, coupled = _elementwise(objective.drift, center)
    discount = jnp.asarray(objective.discount)

    def solve(
        h: ArrayLike, c: Array, g: ArrayLike, m: ArrayLike, b: Array, a: Array
    ) -> tuple[ArrayLike, ...]:
        mobility = jnp.asarray(objective.rate / m)
        x = mobility * objective.gain * jnp.asarray(h)
        shifted = a - discount / 2
        square = shifted**2 + x
        root = jnp.sqrt(jnp.where((square > 0) & (mobility > 0), square, jnp.nan))
        loop = -(a * (a - discount) + x) / (root + discount / 2)
        # a - F without cancellation, whatever the sign of the drift.
        falling = shifted <= 0
        p = jnp.where(falling, x / jnp.where(falling, root - shifted, 1), root + shifted) / mobility
        s = (objective.gain * jnp.asarray(g) + p * b) / (root + discount / 2)
        speed = b - mobility * s
        at_rest = speed == 0
        equilibrium = c - jnp.where(at_rest, 0, speed / jnp.where(at_rest, 1, loop))
        return p, s - p * c, loop, equilibrium, speed

    center = jax.tree.map(jnp.asarray, center)
    solved = jax.tree.map(
        solve, curvature, center, zero if gradient is None else gradient, metric, drift, derivative
    )
    fields = jax.tree.transpose(jax.tree.structure(center), jax.tree.structure((0,) * 5), solved)
    status = _status(
        {
            LQStatus.METRIC_NOT_POSITIVE: _any(jax.tree.map(lambda m: ~(m > 0), metric)),
            LQStatus.DRIFT_NOT_DIAGONAL: coupled,
            LQStatus.NO_STABILISING_SOLUTION: _any(jax.tree.map(jnp.isnan, fields[0])),
        }
    )
    return DiagonalLQPolicy(
        center, *jax.tree.map(lambda x: jnp.where(coupled, jnp.nan, x), fields), status=status
    )


class QuadraticValue(NamedTuple):
    r"""What it is worth to be near a minimum, in values of that time: a function of parameters.

    Attributes:
        center: the minimum $c$, a tree.
        quadratic: $P$ [n, n].
        center_gradient: $s_c$ [n], zero unless a drift acts at the minimum.
        constant: the value at the minimum, $k L_{\min} / \gamma$ without a drift.
        status: an `LQStatus`, int32.
    """

    center: PyTree
    quadratic: Array
    center_gradient: Array
    constant: Array
    status: Array

    def __call__(self, params: PyTree) -> Array:
        r"""$\tfrac12 \delta^\top P \delta + s_c^\top \delta$ + constant, $\delta = \theta - c$."""
        distance = ravel_pytree(params)[0] - ravel_pytree(self.center)[0]
        return (
            distance @ self.quadratic @ distance / 2
            + self.center_gradient @ distance
            + self.constant
        )


def quadratic_value(objective: Objective, loss: Loss, minimum: PyTree) -> QuadraticValue:
    r"""The value of the policy that is optimal near a minimum: a `terminal_value` for paths.

    $$ V = \tfrac12 \delta^\top P \delta + s_c^\top \delta
       + \tfrac{1}{\gamma} \bigl( k L_{\min} + s_c^\top b
       - \tfrac{\eta}{2} s_c^\top G^{-1} s_c \bigr) $$

    The constant, the cost of staying for ever, decides between minima. It diverges at $\gamma = 0$
    unless staying costs nothing: subtract the loss at the minimum from the loss. There, what is
    less than the root of the machine precision a unit of time is taken for nothing.

    Args:
        objective: the constants, metric and drift.
        loss: $L$, twice differentiable.
        minimum: a tree, a minimum of the loss.

    Returns:
        The value, a function of parameters; infinite or NaN where there is none.

    Raises:
        ValueError: the discount is 0 and staying costs something (as far as it is known by then).
    """
    flat, unravel = ravel(minimum)

    def raveled(x: Array) -> Array:
        return jnp.asarray(loss(unravel(x)))

    slope = jax.grad(raveled)(flat)
    hessian = jax.hessian(raveled)(flat)
    policy = lq_policy(objective, (hessian + hessian.T) / 2, minimum, unravel(slope))
    s = policy.linear + policy.quadratic @ flat
    drift = jnp.zeros_like(flat)
    if objective.drift is not None:
        drift = ravel_pytree(objective.drift(minimum))[0]
    lowered = jnp.linalg.solve(metric_matrix(objective, minimum).astype(flat.dtype), s)
    staying = objective.gain * raveled(flat) + s @ drift - objective.rate / 2 * s @ lowered
    discount = jnp.asarray(objective.discount, flat.dtype)
    free = (discount == 0) & (jnp.abs(staying) <= jnp.sqrt(jnp.finfo(flat.dtype).eps))
    if is_concrete(discount) and is_concrete(free) and discount == 0 and not free:
        raise ValueError(
            f"quadratic_value: at discount 0 a minimum where staying costs {staying} a unit of "
            "time has no finite value. Subtract the loss at the minimum from the loss, or discount."
        )
    constant = jnp.where(free, 0, staying / jnp.where(free, 1, discount))
    return QuadraticValue(minimum, policy.quadratic, s, constant, policy.status)


def _elementwise(drift: Any, center: PyTree) -> tuple[PyTree, PyTree, Array]:
    """Drift and its derivative at the center, and whether it couples entries after all."""
    ones = jax.tree.map(jnp.ones_like, center)
    value, derivative = jax.jvp(drift, (center,), (ones,))
    flat, unravel = ravel_pytree(ones)
    # An irregular direction: what couples entries hardly maps it onto a multiple of itself.
    probe = unravel(1 + jnp.sin(jnp.arange(flat.size, dtype=flat.dtype)))
    mapped = ravel_pytree(jax.jvp(drift, (center,), (probe,))[1])[0]
    expected = ravel_pytree(jax.tree.map(jnp.multiply, derivative, probe))[0]
    error = jnp.abs(mapped - expected).max()
    return value, derivative, error > 1e3 * jnp.finfo(flat.dtype).eps * jnp.abs(mapped).max()


def _status(problems: dict[LQStatus, Array]) -> Array:
    """The first problem that is there."""
    return jnp.select(list(problems.values()), list(problems), LQStatus.SOLVED).astype(jnp.int32)


def _any(masks: PyTree) -> Array:
    return jax.tree.reduce(lambda a, m: a | jnp.any(m), masks, jnp.array(False))
