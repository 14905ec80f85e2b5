"""Resetting any optimizer as far as a batch says that the task has switched."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from beliefnav._format import counted, number, reciprocal
from beliefnav._trees import arrays, path_name, unboxed, wide_dtype
from beliefnav.beliefs.contract import Fact
from beliefnav.navigation import check_spelling, forwarding
from beliefnav.wrappers import _anew
from beliefnav.wrappers.contract import check_optimizer, wrapper

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
            $\theta$, in nats, a scalar; 0 where there is no evidence, infinite where the network
            has diverged.
        without_evidence: number of steps without evidence, int32.
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
    *,
    keep_state: bool = False,
    restart_schedule: bool = True,
) -> tuple[Fact, ...]:
    """What `two_hypothesis` assumes, of the same arguments but the inner optimizer."""
    del value_fn, keep_state, restart_schedule
    _anew.check_arguments("two_hypothesis", hazard, examples)
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
    *,
    keep_state: bool = False,
    restart_schedule: bool = True,
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
    ``inner`` so begins again with every task, unless ``restart_schedule`` is false. Random keys and
    injected hyper-parameters stay.

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
    forward pass. ``optax.tree.get(state, name)`` reads the scalars of `TwoHypothesisState`. Where
    ``inner`` has some of the same names, as `beliefnav.rules.hazard_filter` has, ask for the state
    itself: ``optax.tree.get(state, "TwoHypothesisState").switch_probability``.

    **A network that diverged.** Where $L(\theta)$ is not finite and $L(\theta_0)$ is, $\pi = 1$
    whatever the hazard: with a hazard of 0 nothing else is reset. Where $L(\theta_0)$ is not finite
    there is no evidence ($\pi = p$), as of a batch with a NaN in it, and ``without_evidence``
    counts it. A reset is an update, which is added: what rounding leaves of parameters far away is
    corrected at the next step, and parameters that are not finite themselves stay so. A gradient
    that is not finite goes to ``inner`` as it is: to keep parameters finite wrap an optimizer that
    takes it for missing, such as `beliefnav.rules.adam`, or ``optax.apply_if_finite``.

    **A task that is known to begin.** With ``update(..., task_begins=True)``, a boolean that may be
    traced, the task begins with this batch: $\pi = 1$, and the state of ``inner`` is a fresh one.
    Under ``optax.MultiSteps`` say it with the last part of a batch.

    **Batches of unequal size.** ``update(..., examples=n)`` is the number of examples that this
    batch has, as of a padded one; ``inner`` gets it too. Examples are taken to be independent.
    Where the loss is a mean over tokens, and those of a sequence say the same, count sequences, and
    take the sum over tokens for the loss of one.

    **After a resume from parameters alone** give ``prior_mean``, the parameters that training
    started from. Nothing else tells them: ``init`` takes the parameters that it gets for the start.
    A resume from parameters and state needs nothing.

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
            under both hypotheses; see ``keep_state``. (Inside of
            ``optax.masked`` or ``optax.partition`` instead, ``value_fn`` gets a tree with
            ``optax.MaskedNode`` in the places of other arrays, and has to fill them in.)
        value_fn: the loss as a function of parameters, for hosts whose ``update`` has no place for
            it, such as numpyro's ``SVI`` or optimistix: a loss of all the data. One that ``update``
            is given takes its place; without a ``value`` it is evaluated at $\theta$ too.
        keep_state: whether arrays that the mask leaves out also keep their part of the state of
            ``inner``. If not, a switch makes all of it fresh, as that of an optimizer which begins
            where these arrays are. A counter then starts anew if all arrays do that it stands
            beside. Adam has one for all arrays, so that it goes on, and the first steps of those
            that are reset are up to 6.6 times as long; in an ``optax.partition`` every part has its
            own.
        restart_schedule: whether schedules of ``inner`` begin again with every task. If not, their
            counters go on over the whole run, and others, such as that of Adam, start anew.

    Returns:
        The optimizer; its state is a `TwoHypothesisState`.

    Raises:
        ValueError: a number is out of its range; at ``init``, the prior mean or the mask is
            not like the parameters, the start is not finite, or ``inner`` has state that can
            neither be averaged nor counted, such as an array of integers; at ``update``, ``params``
            is missing, or ``value`` is not a scalar. The error names it.
        TypeError: ``hazard`` is a schedule or ``inner`` no optimizer; at ``update``, ``value`` or
            ``value_fn`` is missing, ``value_fn`` is no function, or an extra argument is nearly the
            name of one that is known, as ``task_begin``.

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
    _anew.check_arguments("two_hypothesis", hazard, examples)
    check_optimizer("two_hypothesis", inner)
    wrapped = forwarding(inner)
    own_value_fn, usual = value_fn, examples

    def init(params: PyTree) -> Any:
        params = arrays(params)
        chosen(params)
        target = _anew.start_of("two_hypothesis", prior_mean, params)
        inner_state = wrapped.init(params)
        _check_mixable(inner_state)
        nothing = [jnp.zeros((), jnp.float32) for _ in range(3)]
        return TwoHypothesisState(
            inner_state, target, *nothing, without_evidence=jnp.zeros((), jnp.int32)
        )

    def chosen(params: PyTree) -> PyTree:
        """Which arrays are reset, as a tree of booleans."""
        return _anew.chosen_by("two_hypothesis", True if mask is None else mask, params)

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree = None,
        *,
        value: Any = None,
        value_fn: Callable[[PyTree], Any] | None = None,
        examples: ArrayLike | None = None,
        task_begins: ArrayLike | None = None,
        **extra_args: Any,
    ) -> tuple[PyTree, Any]:
        check_spelling(extra_args)
        _anew.check_params("two_hypothesis", params)
        updates, params = arrays(updates), arrays(params)
        value_fn = own_value_fn if value_fn is None else value_fn
        if value is None and callable(own_value_fn) and value_fn is own_value_fn:
            value = own_value_fn(params)
        _anew.check_losses("two_hypothesis", value, value_fn, _REMEDY)
        assert value_fn is not None
        where = chosen(params)
        fresh_params = _anew.where_chosen(where, state.prior_mean, params)
        loss = _anew.scalar("two_hypothesis", "value", value)
        prior_value = value_fn(fresh_params)
        prior_value = _anew.scalar("two_hypothesis", "the result of value_fn", prior_value)
        evidence, seen = _evidence(loss, prior_value, usual if examples is None else examples)
        diverged = ~jnp.isfinite(loss) & jnp.isfinite(prior_value)
        certain = diverged | _anew.told(task_begins)
        switched = jax.nn.sigmoid(jax.scipy.special.logit(jnp.float32(hazard)) + evidence)
        switched = jnp.where(certain, 1, switched)
        if examples is not None:
            extra_args["examples"] = examples
        updates, inner_state = wrapped.update(
            updates,
            state.inner_state,
            params,
            value=value,
            value_fn=value_fn,
            **extra_args,
        )

        landing = jnp.isinf(state.surprise)  # from so far away that the start was missed

        def mean(u: Array, new: Array, p: Array) -> Array:
            dtype = wide_dtype(p.dtype)
            u, share = u.astype(dtype), switched.astype(dtype)
            moved = new.astype(dtype) - p.astype(dtype)
            u = jnp.where(landing, u + moved, u)
            mixed = (1 - share) * u + share * moved
            likelier = jnp.where(switched > 0.5, moved, u)
            return jnp.where(jnp.isfinite(mixed), mixed, likelier).astype(p.dtype)

        updates = jax.tree.map(
            lambda m, u, new, p: mean(u, new, p) if m else u,
            where,
            updates,
            state.prior_mean,
            params,
        )
        reset = where if keep_state else jax.tree.map(lambda _: True, where)
        return updates, TwoHypothesisState(
            _anew.started_anew(
                wrapped,
                inner_state,
                wrapped.init(fresh_params),
                reset,
                restart_schedule,
                switched,
                certain,
            ),
            state.prior_mean,
            switch_probability=switched,
            reset_fraction=switched,
            surprise=jnp.where(diverged, jnp.inf, evidence),
            without_evidence=jnp.where(
                seen | diverged,
                state.without_evidence,
                optax.safe_increment(state.without_evidence),
            ),
        )

    return optax.GradientTransformationExtraArgs(init, update)


_REMEDY = (
    "Where the host has no place for it, as flax's TrainState.apply_gradients, call update "
    "yourself; or give two_hypothesis(value_fn=), a loss of all the data."
)


def _evidence(value: Array, prior_value: Array, examples: ArrayLike) -> tuple[Array, Array]:
    """The log of the ratio of likelihoods, 0 where it is not known, and whether it is."""
    seen = jnp.isfinite(value) & jnp.isfinite(prior_value)
    difference = jnp.where(seen, value - prior_value, 0)
    most = jnp.finfo(jnp.float32).max
    return jnp.clip((examples * difference).astype(jnp.float32), -most, most), seen


def _check_mixable(inner_state: PyTree) -> None:
    """Raise unless every leaf is averaged, counts, or stays."""
    for path, x in jax.tree.leaves_with_path(unboxed(inner_state)):
        x = jnp.asarray(x)
        if not (_anew.stays(path, x) or jnp.issubdtype(x.dtype, jnp.inexact) or x.ndim == 0):
            raise ValueError(
                f"Cannot use two_hypothesis with an optimizer that has {path_name(path)!r}, of "
                f"dtype {x.dtype} and shape {x.shape}, in its state. This is because "
                "integers can be counters, which start anew, but not averaged with those of a "
                "fresh state; keep it in floating point, or wrap two_hypothesis in what needs it."
            )
