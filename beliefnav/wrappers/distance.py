r"""Distance adaptation: the length of a step as a belief about how far the optimum is.

The weight of the loss over the price of moving, $\eta k$, sets the length of a ballistic step,
$\sqrt{\eta k} \Delta t \, m / \sqrt V$. In units of how far a parameter may have to go, r, that
length is a distance, $D = \max_i |\theta^*_i - \theta_{0,i}| / r_i$, which is unknown and can be
learned. On a convex loss the gradients $g_t$ satisfy
$\langle g_t, \theta_t - \theta^* \rangle \ge 0$ in expectation, so that with any weights that do
not depend on the noise of $g_t$

$$ s = \sum_t w_t g_t , \quad N = \sum_t w_t \langle g_t, \theta_0 - \theta_t \rangle
   \quad\Rightarrow\quad
   N \le \langle s, \theta_0 - \theta^* \rangle \le D \sum_i r_i |s_i| , \qquad
   D \ge b = \frac{N}{\sum_i r_i |s_i|} . $$

The likelihood that this reads is 1 for $D \ge b$ and 0 below. Under a prior that has no scale,
$p(D) \propto D^{-a-1}$ for $D \ge D_0$ (Pareto), it is conjugate: the posterior is
$\mathrm{Pareto}(\hat D, a)$ with $\hat D = \max(D_0, b_1, \ldots, b_t)$. Its mode is $\hat D$,
whatever a; its median is $2^{1/a} \hat D$ and its mean, for $a > 1$, $a \hat D / (a - 1)$.
D-Adaptation, Prodigy and DoG all step by such a mode. What differs is the bound: DoG takes how far
the parameters have been for one.

Reference:
    Defazio and Mishchenko, "Learning-rate-free learning by D-Adaptation", ICML 2023. Mishchenko and
    Defazio, "Prodigy: an expeditiously adaptive parameter-free learner", ICML 2024. Ivgi, Hinder
    and Carmon, "DoG is SGD's best friend: a parameter-free dynamic step size schedule", ICML 2023.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from beliefnav import _trees
from beliefnav._checks import POSITIVE, UNIT_INTERVAL, refuse_schedule
from beliefnav._format import counted, number, reciprocal
from beliefnav._sharding import summed
from beliefnav.beliefs.contract import Fact
from beliefnav.navigation import check_real, forwarding
from beliefnav.wrappers.contract import check_optimizer, wrapper

__all__ = ["DistanceState", "distance_adaptation"]

PyTree = Any


class DistanceState(NamedTuple):
    r"""State of `distance_adaptation`.

    Attributes:
        inner_state: of the optimizer.
        start_params: $\theta_0$, a tree like the parameters.
        weighted_gradient: $s$ in units of the weight of the last gradient, a tree like the
            parameters in float32 or wider.
        weighted_progress: $N$ in the same units, a scalar.
        distance: $\hat D$, a scalar, in units of ``prior_scale`` or, without, of the parameters.
    """

    inner_state: Any
    start_params: PyTree
    weighted_gradient: PyTree
    weighted_progress: Array
    distance: Array


def distance_adaptation_facts(
    guess: ArrayLike = 1e-4,
    prior_scale: PyTree = None,
    discount: ArrayLike = 0.999**0.5,
) -> tuple[Fact, ...]:
    """What `distance_adaptation` assumes, of the same arguments but the inner optimizer."""
    _check(guess, prior_scale, discount)
    scale = "the initial parameters'" if prior_scale is None else "given"
    return (
        Fact("distance", f"{number(guess)} or more", "Without a scale: any multiple is as likely."),
        Fact("distance scale", scale, "What the distance of a parameter is measured in."),
        Fact(
            "distance memory",
            counted(reciprocal(1 - discount), "step"),
            "What earlier gradients say of the distance is forgotten.",
        ),
        Fact(
            "approximation",
            "",
            "The loss is convex, and what holds of it in expectation is taken for certain.",
        ),
        Fact(
            "approximation",
            "",
            "The step is the mode of the posterior of the distance: the least that is possible.",
        ),
    )


@wrapper(distance_adaptation_facts)
def distance_adaptation(
    inner: optax.GradientTransformation,
    guess: ArrayLike = 1e-4,
    prior_scale: PyTree = None,
    discount: ArrayLike = 0.999**0.5,
) -> optax.GradientTransformationExtraArgs:
    r"""Multiply the steps of an optimizer by a distance to the optimum that is learned.

    With the steps u of the optimizer inside, whose entries are of the order of 1,

    $$ \theta \leftarrow \theta + \hat D r u , \qquad w_t = \hat D_t^2 , \quad
       s \leftarrow \beta s + w_t g_t , \quad
       N \leftarrow \beta N + w_t \langle g_t, \theta_0 - \theta_t \rangle , \quad
       \hat D \leftarrow \max(\hat D, N / \textstyle\sum_i r_i |s_i|) . $$

    The module derives $\hat D$ as the mode of a posterior. Around a rule whose step is the sign of
    the gradient this is ``optax.contrib.prodigy``, exactly; around Adam's beliefs it differs in the
    weights of the first gradients: Prodigy weighs what Adam believes by $\hat D$ too, and gradients
    by Adam's bias corrections.

    Give it an optimizer with the learning rate 1, or with a schedule of factors, whose step does
    not depend on the scale of the gradient. A step whose entries are not of one order, as that of
    gradient descent, is not what the bound is about.

    A gradient entry that is not finite says nothing. A loss that is multiplied by a constant leaves
    all as it is. So do parameters that are all multiplied by one, or with ``prior_scale`` also
    arrays by one each.

    Args:
        inner: any optax optimizer.
        guess: $D_0 > 0$, in units of ``prior_scale``. A distance below it is never believed.
        prior_scale: $r > 0$, a number, or a tree like the parameters, in which one value may stand
            for all arrays below its path. Default: the root of the mean square of all initial
            parameters, and 1 where they are all 0.
        discount: $\beta$ in [0, 1], of what earlier gradients say.

    Returns:
        The optimizer; its state is a `DistanceState`.

    Raises:
        ValueError: a number is out of its range; at ``init``, a parameter is no real floating-point
            array, or ``prior_scale`` does not fit the parameters; at ``update``, ``params`` is
            missing.
        TypeError: ``inner`` is no optimizer, or a number a schedule.

    Reference:
        The module names the sources. Prodigy is algorithm 3 of its paper.

    Example:
        Optima at a distance of 3 and of 300, and nobody says so:

        >>> import jax, jax.numpy as jnp, optax
        >>> from beliefnav import rules
        >>> from beliefnav.wrappers.distance import distance_adaptation
        >>> for optimum in (3.0, 300.0):
        ...     optimizer = distance_adaptation(rules.adam(1.0, eps=0.0), prior_scale=1.0)
        ...     params = jnp.zeros(2)
        ...     state = optimizer.init(params)
        ...     for _ in range(200):
        ...         gradient = jnp.sign(params - optimum)
        ...         updates, state = optimizer.update(gradient, state, params)
        ...         params = optax.apply_updates(params, updates)
        ...     print(bool(0.1 * optimum < state.distance <= optimum))
        True
        True
    """
    _check(guess, prior_scale, discount)
    check_optimizer("distance_adaptation", inner)
    wrapped = forwarding(inner)

    def init(params: PyTree) -> Any:
        check_real(params)
        params = _trees.arrays(params)
        _fitted(prior_scale, params)
        distance = _trees.scalar_like(params, guess)
        if prior_scale is None:
            distance = distance * _root_mean_square(params, distance)
        return DistanceState(
            wrapped.init(params),
            _trees.copied(params),
            _trees.full_like(params, 0),
            weighted_progress=_trees.scalar_like(params, 0),
            distance=distance,
        )

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, Any]:
        if params is None:
            raise ValueError(
                "Cannot update distance_adaptation without params. This is because it measures how "
                "far they are from where they started; call update(gradient, state, params)."
            )
        updates, params = _trees.arrays((updates, params))
        distance = _trees.arrays(state.distance)
        scale = _fitted(prior_scale, updates)
        gradient = jax.tree.map(_observed, updates, state.weighted_gradient)
        moved = jax.tree.map(_moved, params, state.start_params, state.weighted_gradient)
        kept = jnp.asarray(discount, distance.dtype)
        total = jax.tree.map(
            lambda s, g: kept.astype(s.dtype) * s + g, state.weighted_gradient, gradient
        )
        progress = kept * state.weighted_progress - _sum(jnp.multiply, distance, gradient, moved)
        size = _sum(lambda s, r: r * jnp.abs(s), distance, total, scale)
        bound = progress / jnp.where(size > 0, size, 1)
        after = jnp.where(jnp.isfinite(bound), jnp.maximum(distance, bound), distance)
        # Sums are kept in units of the present weight: those of the first would leave float32.
        rescaled = jnp.square(distance / after)
        steps, inner_state = wrapped.update(updates, state.inner_state, params, **extra_args)
        steps = jax.tree.map(
            lambda u, s, r: (distance.astype(s.dtype) * r * u.astype(s.dtype)).astype(u.dtype),
            steps,
            total,
            scale,
        )
        return steps, DistanceState(
            inner_state,
            state.start_params,
            jax.tree.map(lambda s: s * rescaled.astype(s.dtype), total),
            progress * rescaled,
            after,
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _observed(g: Array, like: Array) -> Array:
    """A gradient in the dtype of the sums, 0 where it is not finite."""
    return _trees.select(_trees.is_observed(g), _trees.wide(g, like.dtype), 0)


def _moved(p: Array, start: Array, like: Array) -> Array:
    """How far parameters are from where they started, 0 where they are not finite."""
    moved = _trees.wide(p, like.dtype) - _trees.wide(start, like.dtype)
    return _trees.select(jnp.isfinite(moved), moved, 0)


def _sum(of: Callable[..., Array], like: Array, *trees: PyTree) -> Array:
    """The sum over all entries of all arrays of a function of the entries, in the dtype of one."""
    totals = jax.tree.map(lambda *x: _trees.wide(summed(of(*x)), like.dtype), *trees)
    return sum(jax.tree.leaves(totals), jnp.zeros((), like.dtype))


def _fitted(prior_scale: PyTree, like: PyTree) -> PyTree:
    """One scale for every array, in its dtype."""
    given = 1.0 if prior_scale is None else prior_scale
    fitted = _trees.fitted("distance_adaptation", "prior_scale", given, like)
    for r, x in zip(*map(jax.tree.leaves, (fitted, like)), strict=True):
        if not _trees.fits(jnp.shape(r), x.shape):
            raise ValueError(
                "distance_adaptation: a prior_scale must be one number or of the shape of its "
                f"parameter, {x.shape}; got {jnp.shape(r)}."
            )
    return jax.tree.map(
        lambda r, x: jnp.asarray(r).astype(_trees.wide_dtype(jnp.result_type(x))), fitted, like
    )


def _root_mean_square(params: PyTree, like: Array) -> Array:
    """Of all entries together; 1 where there are none, or none but 0, or no values yet."""
    leaves = jax.tree.leaves(params)
    if not leaves or any(isinstance(x, jax.ShapeDtypeStruct) for x in leaves):
        return jnp.ones_like(like)
    total = _sum(lambda x: jnp.square(x.astype(_trees.wide_dtype(x.dtype))), like, params)
    number = jnp.maximum(_sum(lambda x: x * 0 + 1, like, params), 1)  # over all devices
    known = jnp.isfinite(total) & (total > 0)
    # The derivative of a root at 0 is infinite.
    return jnp.where(known, jnp.sqrt(jnp.where(known, total, 1) / number), 1)


def _check(guess: Any, prior_scale: Any, discount: Any) -> None:
    for name, allowed, value in (
        ("guess", POSITIVE, guess),
        ("discount", UNIT_INTERVAL, discount),
    ):
        refuse_schedule("wrappers.distance_adaptation", name, value)
        allowed.check_annotated("distance_adaptation", name, value, float)
        if jnp.ndim(value) > 0:
            raise ValueError(
                f"distance_adaptation: {name} must be one number, got shape {jnp.shape(value)}."
            )
    POSITIVE.check_leaves("distance_adaptation", "prior_scale", prior_scale)
