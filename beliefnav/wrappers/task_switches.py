"""Resetting any optimizer as far as a batch says that the task has switched."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from beliefnav._checks import POSITIVE, UNIT_INTERVAL, refuse_schedule
from beliefnav._format import counted, number, reciprocal
from beliefnav._trees import arrays, copied, fitted, is_function, named_leaves, path_name, unboxed
from beliefnav.beliefs.contract import Fact
from beliefnav.navigation import NavigationState, forwarding
from beliefnav.wrappers.contract import Forgetting, Optimizer, wrapper

__all__ = ["TwoHypothesisState", "two_hypothesis"]

PyTree = Any


class TwoHypothesisState(NamedTuple):
    r"""State of `two_hypothesis`.

    Attributes:
        inner_state: of the optimizer.
        prior_mean: $\theta_0$, a tree like the parameters.
        switch_probability: $\pi$, that the task switched just before the last batch, a scalar.
        reset_fraction: the share of its way to $\theta_0$ that every parameter went at the last
            step, a scalar.
        surprise: the log of the ratio of the likelihoods of the last batch at $\theta_0$ and at
            $\theta$, in nats, a scalar; 0 where there is no evidence.
        without_evidence: number of steps at which a loss was not finite, int32.
    """

    inner_state: Any
    prior_mean: PyTree
    switch_probability: Array
    reset_fraction: Array
    surprise: Array
    without_evidence: Array


def two_hypothesis_facts(
    hazard: ArrayLike,
    examples: ArrayLike,
    prior_mean: PyTree = None,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
    value_fn: Callable[[PyTree], Any] | None = None,
) -> tuple[Fact, ...]:
    """What `two_hypothesis` assumes, of the same arguments but the inner optimizer."""
    del value_fn
    _check_numbers(hazard, examples)
    start = "the initial parameters" if prior_mean is None else "given"
    reset = "Where the parameters of a new task are taken to be."
    if mask is not None:
        reset += " Only the arrays that the mask chooses go there."
    return (
        Fact(
            "task length",
            counted(reciprocal(hazard), "step"),
            "On average; then the task switches. Each batch says whether it just has.",
        ),
        Fact(
            "evidence",
            f"{number(examples)} examples a batch",
            "Their mean loss is a negative log-likelihood, in nats, of independent examples.",
        ),
        Fact("task prior", start, reset),
        Fact("approximation", "", "The mean of the two hypotheses is kept, not both."),
        Fact("approximation", "", "Likelihoods are taken at two points, without variances."),
        Fact("approximation", "", "Of a new task nothing is learned from its first batch."),
    )


@wrapper(two_hypothesis_facts)
def two_hypothesis(
    inner: optax.GradientTransformation,
    hazard: ArrayLike,
    examples: ArrayLike,
    prior_mean: PyTree = None,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
    value_fn: Callable[[PyTree], Any] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Reset an optimizer and its parameters as far as a batch says that the task has switched.

    Under the hypothesis that the task goes on, the batch is seen from the parameters $\theta$; if
    it has just switched, from the prior mean $\theta_0$. With the hazard $p$ and the mean loss $L$
    of $B$ examples, a negative log-likelihood in nats,

    $$ \mathrm{logit}\, \pi = \mathrm{logit}\, p + B [L(\theta) - L(\theta_0)] , \qquad
       \theta \leftarrow (1 - \pi)(\theta + u) + \pi \theta_0 , $$

    $u$ the update of ``inner``: the mean of the two hypotheses, of which the new one has not
    learned from its first batch. The state of ``inner`` becomes that mean too, $(1-\pi)$ of itself
    and $\pi$ of a fresh one. What cannot be averaged is that of the likelier hypothesis: counters
    of steps start anew where $\pi > 1/2$, and are what they were otherwise. A schedule inside
    ``inner`` so begins again with every task. Random keys and injected hyper-parameters stay.

    The two likelihoods are taken at two points. The predictive densities of the hypotheses are
    wider, by the variance of what is believed of the present task and by that of the prior, and
    these variances are dropped: an optimizer in general has neither. So a batch seems to say more
    than it does, most of all where the noise is small beside the prior. `beliefs.TwoHypotheses` has
    both variances. On one weight whose optimum is drawn anew from $N(0, 1)$ and is seen through
    noise of variance $R$, the mean squared error of that belief is 0.138, 0.0438 and 0.0056 at
    $p = 0.02, R = 1$, at $p = 0.02, R = 0.25$ and at $p = 0.01, R = 0.05$ (300,000 steps each).
    Without the variances it is 0.143, 0.0536 and 0.0205; that of this wrapper around a Kalman
    filter, which also learns nothing from the first batch of a task, 0.148, 0.0590 and 0.0203.

    ``update`` needs two more arguments by name, ``value``, the mean loss $L(\theta)$ of the batch,
    and ``value_fn``, the same as a function of parameters, which is evaluated at $\theta_0$: one
    forward pass. Where one of them is not finite there is no evidence ($\pi = p$), and
    ``without_evidence`` counts it. ``optax.tree.get(state, name)`` reads the scalars of
    `TwoHypothesisState`; where ``inner`` has some of the same names, read them off the state.

    A gradient that is not finite goes to ``inner`` as it is: wrap one that takes it for missing,
    such as `beliefnav.rules.adam`, or ``optax.apply_if_finite``.

    Inside ``jax.shard_map``, where each device sees a part of the batch, ``value`` and ``value_fn``
    are losses of the whole batch, as ``lambda p: jax.lax.pmean(loss(p, x, y), "data")``, and
    ``examples`` counts all of it. By the loss of its own part alone each device would suspect
    something else, and parameters that should be the same would drift apart: ``shard_map`` refuses
    that, unless it is told not to look (``check_vma=False``).

    Wrap the whole optimizer, learning rate included: what scales the updates afterwards also scales
    the resets. Under ``optax.MultiSteps``, ``value`` and ``value_fn`` are those of the last part of
    a batch, and ``examples`` counts these.

    Args:
        inner: any optax optimizer whose state is made of floats, scalar counters and random keys.
        hazard: $p$ in [0, 1], per step.
        examples: $B > 0$, the number of examples that the loss is the mean of.
        prior_mean: $\theta_0$, a tree like the parameters. Default: the parameters at ``init``.
        mask: tree of booleans, of which one may stand for all arrays below its path, or a callable
            from parameters to one: which arrays a switch resets. The others stay where they are
            under both hypotheses, and the fresh state of ``inner`` starts from there. (Inside of
            ``optax.masked`` or ``optax.partition`` instead, ``value_fn`` gets a tree with
            ``optax.MaskedNode`` in the places of other arrays, and has to fill them in.)
        value_fn: the loss as a function of parameters, for hosts whose ``update`` has no place for
            it, such as numpyro's ``SVI`` or optimistix: a loss of all the data. One that ``update``
            is given takes its place; without a ``value`` it is evaluated at $\theta$ too.

    Returns:
        The optimizer; its state is a `TwoHypothesisState`.

    Raises:
        ValueError: a number is out of its range; at ``init``, the prior mean or the mask is
            not like the parameters, or ``inner`` has state that can neither be averaged nor
            counted, such as an array of integers; at ``update``, ``params`` is missing, or
            ``value`` is not a scalar. The error names it.
        TypeError: ``hazard`` is a schedule or ``inner`` no optimizer; at ``update``, ``value`` or
            ``value_fn`` is missing, or ``value_fn`` is no function.

    Example:
        What a continual learner writes:

        >>> import jax, jax.numpy as jnp, optax
        >>> from beliefnav import wrappers
        >>> loss = lambda weights, x, y: jnp.mean((x @ weights - y) ** 2) / 2
        >>> optimizer = wrappers.two_hypothesis(optax.adam(0.1), hazard=0.01, examples=32)
        >>> @jax.jit
        ... def step(weights, state, x, y):
        ...     value_fn = lambda weights: loss(weights, x, y)
        ...     value, grads = jax.value_and_grad(value_fn)(weights)
        ...     updates, state = optimizer.update(
        ...         grads, state, weights, value=value, value_fn=value_fn
        ...     )
        ...     return optax.apply_updates(weights, updates), state
        >>> weights = jnp.zeros(2)
        >>> state = optimizer.init(weights)
        >>> for truth in (jnp.array([1.0, -1.0]), jnp.array([-2.0, 2.0])):
        ...     for t, key in enumerate(jax.random.split(jax.random.key(0), 200)):
        ...         x = jax.random.normal(key, (32, 2))
        ...         weights, state = step(weights, state, x, x @ truth)
        ...         if t == 0:
        ...             print(optax.tree.get(state, "switch_probability").round(2))
        0.01
        1.0
    """
    _check_numbers(hazard, examples)
    if not isinstance(inner, Optimizer):
        raise TypeError(f"two_hypothesis: inner must be an optax optimizer, got {inner!r}.")
    wrapped = forwarding(inner)
    own_value_fn = value_fn

    def init(params: PyTree) -> Any:
        params = arrays(params)
        chosen(params)
        target = copied(params)
        if prior_mean is not None:
            given = fitted("two_hypothesis", "prior_mean", prior_mean, params)
            _check_prior_mean(given, params)
            target = jax.tree.map(lambda p, m: jnp.array(m, p.dtype), params, given)
        inner_state = wrapped.init(params)
        _check_mixable(inner_state)
        nothing = [jnp.zeros((), jnp.float32) for _ in range(3)]
        return TwoHypothesisState(
            inner_state, target, *nothing, without_evidence=jnp.zeros((), jnp.int32)
        )

    def chosen(params: PyTree) -> PyTree:
        """Which arrays are reset, as a tree of booleans."""
        chosen = mask(params) if is_function(mask) else mask
        if chosen is None:
            return jax.tree.map(lambda _: True, params)
        return fitted("two_hypothesis", "mask", chosen, params)

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree = None,
        *,
        value: Any = None,
        value_fn: Callable[[PyTree], Any] | None = None,
        **extra_args: Any,
    ) -> tuple[PyTree, Any]:
        if params is None:
            raise ValueError(
                "Cannot update two_hypothesis without params. This is because it resets them; call "
                "update(gradient, state, params, value=..., value_fn=...)."
            )
        updates, params = arrays(updates), arrays(params)
        value_fn = own_value_fn if value_fn is None else value_fn
        if value is None and callable(own_value_fn) and value_fn is own_value_fn:
            value = own_value_fn(params)
        if value is None or value_fn is None:
            missing = " and ".join(
                name for name, x in (("value", value), ("value_fn", value_fn)) if x is None
            )
            raise TypeError(
                f"two_hypothesis: update needs {missing}. Give value=, the mean loss of the batch "
                "in nats, and value_fn=, the same as a function of parameters: whether the task "
                "has switched is seen from the loss at the prior mean. Where the host has no place "
                "for it, as flax's TrainState.apply_gradients, call update yourself; or give "
                "two_hypothesis(value_fn=), a loss of all the data."
            )
        if not callable(value_fn):
            raise TypeError(
                "two_hypothesis: value_fn must be a function from parameters to the mean loss of "
                f"the batch, got {value_fn!r}."
            )
        where = chosen(params)
        fresh_params = jax.tree.map(
            lambda m, new, p: new if m else p, where, state.prior_mean, params
        )
        surprise, seen = _evidence(value, value_fn(fresh_params), examples)
        switched = jax.nn.sigmoid(jax.scipy.special.logit(jnp.float32(hazard)) + surprise)
        updates, inner_state = wrapped.update(
            updates, state.inner_state, params, value=value, value_fn=value_fn, **extra_args
        )

        def mean(u: Array, new: Array, p: Array) -> Array:
            moved = new.astype(jnp.float32) - p.astype(jnp.float32)
            mixed = (1 - switched) * u + switched * moved
            likelier = jnp.where(switched > 0.5, moved, u)
            return jnp.where(jnp.isfinite(mixed), mixed, likelier).astype(p.dtype)

        updates = jax.tree.map(
            lambda m, u, new, p: mean(u, new, p) if m else u,
            where,
            updates,
            state.prior_mean,
            params,
        )
        return updates, TwoHypothesisState(
            _mixed(switched, inner_state, wrapped.init(fresh_params)),
            state.prior_mean,
            switch_probability=switched,
            reset_fraction=switched,
            surprise=surprise,
            without_evidence=jnp.where(
                seen, state.without_evidence, optax.safe_increment(state.without_evidence)
            ),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _check_numbers(hazard: Any, examples: Any) -> None:
    refuse_schedule("wrappers.two_hypothesis", "hazard", hazard)
    UNIT_INTERVAL.check_annotated("two_hypothesis", "hazard", hazard, float)
    POSITIVE.check_annotated("two_hypothesis", "examples", examples, float)


def _evidence(value: Any, prior_value: Any, examples: ArrayLike) -> tuple[Array, Array]:
    """The log of the ratio of likelihoods, 0 where it is not known, and whether it is."""
    for name, x in (("value", value), ("the result of value_fn", prior_value)):
        got = "a " + type(x).__name__ if isinstance(x, tuple) else f"the shape {jnp.shape(x)}"
        if got != "the shape ()":
            raise ValueError(
                f"two_hypothesis: {name} must be a scalar, the mean loss of the batch, got {got}."
            )
    difference = jnp.asarray(value, jnp.float32) - jnp.asarray(prior_value, jnp.float32)
    evidence = (examples * difference).astype(jnp.float32)
    seen = jnp.isfinite(evidence)
    return jnp.where(seen, evidence, 0), seen


def _check_prior_mean(given: PyTree, params: PyTree) -> None:
    """Raise unless the values are of the shapes of the parameters."""
    for (path, p), m in zip(named_leaves(params), jax.tree.leaves(given), strict=True):
        if jnp.shape(m) != p.shape:
            raise ValueError(
                "two_hypothesis: prior_mean must be like the parameters, got the shape "
                f"{jnp.shape(m)} for parameter {path!r} of shape {p.shape}."
            )


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _stays(path: tuple[Any, ...], x: Any) -> bool:
    """Random keys, and hyper-parameters that were injected: they belong to no task."""
    return _is_key(x) or any(
        isinstance(part, jax.tree_util.GetAttrKey) and part.name == "hyperparams" for part in path
    )


def _check_mixable(inner_state: PyTree) -> None:
    """Raise unless every leaf is averaged, counts, or stays."""
    for path, x in jax.tree.leaves_with_path(unboxed(inner_state)):
        x = jnp.asarray(x)
        if not (_stays(path, x) or jnp.issubdtype(x.dtype, jnp.inexact) or x.ndim == 0):
            raise ValueError(
                f"Cannot use two_hypothesis with an optimizer that has {path_name(path)!r}, of "
                f"dtype {x.dtype} and shape {x.shape}, in its state. This is because "
                "integers can be counters, which start anew, but not averaged with those of a "
                "fresh state; keep it in floating point, or wrap two_hypothesis in what needs it."
            )


def _mixed(switched: Array, state: PyTree, fresh: PyTree) -> PyTree:
    """The mean of two states of an optimizer, or that of the likelier where there is none."""

    def leaf(path: tuple[Any, ...], x: Array, new: Array) -> Array:
        if _stays(path, x):
            return x
        likelier = jnp.where(switched > 0.5, new, x)
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            return likelier
        # In this form what does not change stays, to the last digit.
        mean = x + switched.astype(x.dtype) * (new - x)
        return jnp.where(jnp.isfinite(mean), mean, likelier)

    def node(path: tuple[Any, ...], x: Any, new: Any) -> Any:
        if isinstance(x, Forgetting):
            inside: Any = _mixed(switched, x.inner_state, new.inner_state)
            return x.forgotten(switched, new)._replace(inner_state=inside)
        if not isinstance(x, NavigationState):
            return leaf(path, x, new)
        # What the last step showed is no part of the belief, and a record may have asked for it
        # after the state was made.
        shown = {"missing": x.missing, "clipped": x.clipped, "probe": x.probe}
        kept = dict.fromkeys(shown)
        mean = jax.tree.map_with_path(leaf, x._replace(**kept), new._replace(**kept))
        return mean._replace(**shown)

    return jax.tree.map_with_path(
        node, state, fresh, is_leaf=lambda x: isinstance(x, NavigationState | Forgetting)
    )


def renewed(inner: Any, state: PyTree, fresh: PyTree, mask: PyTree) -> PyTree:
    """The state of an optimizer of which some arrays start anew, and their counters if all do."""
    whole = all(jax.tree.leaves(mask))
    chosen = optax.tree.map_params(
        inner,
        lambda x, m: x if _is_masked(x) else m,
        state,
        mask,
        transform_non_params=lambda _: whole,
        is_leaf=_is_masked,
    )

    def leaf(path: tuple[Any, ...], anew: bool, x: Array, new: Array) -> Array:
        return new if anew and not _stays(path, x) else x

    return jax.tree.map_with_path(leaf, chosen, state, fresh)


def _is_masked(x: Any) -> bool:
    return isinstance(x, optax.MaskedNode)
