"""Resetting those layers of any optimizer that a new task needs anew."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.typing import ArrayLike

from beliefnav._checks import POSITIVE, UNIT_INTERVAL, refuse_schedule
from beliefnav._trees import arrays, copied, fitted, is_function, unboxed
from beliefnav.navigation import forwarding
from beliefnav.wrappers.contract import Optimizer
from beliefnav.wrappers.task_switches import renewed

__all__ = ["LayerHypothesesState", "layer_hypotheses", "layer_masks"]

PyTree = Any
WARM_UP = 10
"""Batches without a suspicion, from which the level of the loss is learned."""


class LayerHypothesesState(NamedTuple):
    """State of `layer_hypotheses`.

    Attributes:
        inner_state: of the optimizer, under the hypothesis that leads.
        prior_mean: the start, a tree like the parameters.
        rivals: the parameters of every hypothesis [hypothesis, ...]; 0 is "the task goes on".
        rival_states: the states of the optimizer of every hypothesis [hypothesis, ...].
        log_weights: log posterior probabilities of the hypotheses [hypothesis] in a trial.
        leader: the likeliest hypothesis of the last trial, int32.
        remaining: steps that are left of a trial, int32; 0 outside of one.
        level: mean loss of the last batches, in nats.
        variance: of the loss of the last batches.
        seen: batches that these two are from, int32.
        switch_probability: that the task does not go on, a scalar; 0 outside of a trial.
        surprise: log of the ratio of likelihoods that no hypothesis can exceed, in nats.
        trials: number of trials begun, int32.
    """

    inner_state: Any
    prior_mean: PyTree
    rivals: PyTree
    rival_states: Any
    log_weights: Array
    leader: Array
    remaining: Array
    level: Array
    variance: Array
    seen: Array
    switch_probability: Array
    surprise: Array
    trials: Array


def layer_masks(params: PyTree) -> list[PyTree]:
    """Which arrays start anew: all; then the last and the first layers, in the tree's order.

    Arrays of one parent in the tree are one layer. Three layers have five masks; of more layers,
    the last one, the last half, the first one and the first half are taken.
    """
    paths = [path for path, _ in jax.tree.leaves_with_path(unboxed(params))]
    above = [path[:-1] or path for path in paths]
    layers = list(dict.fromkeys(above))
    count = len(layers)
    chosen = [set(layers)]
    for n in range(1, count) if count <= 3 else (1, count // 2):
        chosen += [set(layers[-n:]), set(layers[:n])]
    structure = jax.tree.structure(params)
    return [structure.unflatten([layer in some for layer in above]) for some in chosen]


def layer_hypotheses(
    inner: optax.GradientTransformation,
    hazard: ArrayLike,
    examples: ArrayLike,
    trial: int = 20,
    masks: Sequence[PyTree | Callable[[PyTree], PyTree]] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Find out which layers of a network a new task needs anew, and reset those.

    The hypotheses are that the task goes on, and that the arrays of one of ``masks`` start anew:
    their parameters from the initial ones, their part of the state of ``inner`` fresh. Other arrays
    keep state and schedule; counters start anew only where all arrays do.

    A trial begins when a batch is surprising. With the mean $\bar L$ and the variance $s^2$ of the
    loss $L$ of the last batches, of $B$ examples each, and the hazard $p$, that is where

    $$ \mathrm{logit}\, p + \min\{B (L - \bar L),\ (L - \bar L)^2 / 2 s^2\} > 0 : $$

    no hypothesis can explain the batch much better than the network explained those before. For
    ``trial`` steps every hypothesis $k$ then learns from every batch, and its log weight
    $\log w_k$, at first $\log(1-p)$ or $\log (p/K)$, falls by $B L_k$, the loss before it learns
    from the batch. The parameters are those of the likeliest hypothesis at every step.

    A prefix of fresh layers under a trained head is worse than chance at first; a trial shows what
    a single batch cannot. Long trials prefer what learns the present task soonest, which may cost
    plasticity: on random labels of 320 digits, batches of 16, trials of 20 steps reset all layers
    at 19 of 19 switches, and the online accuracy stays at .65 over 20 tasks; with trials of 160
    steps, which mostly reset the head, it falls from .70 to .40 (Adam at 3e-3, one seed).

    Outside of a trial a step has no further pass. In a trial it has one forward and one backward
    pass for each hypothesis, one after the other, 1 + K in all; under ``jax.vmap`` every step pays
    for them. The state holds the parameters and the state of ``inner`` 1 + K times more.

    ``update`` takes ``value``, the mean loss of the batch in nats, and ``value_fn``, the same as a
    function of parameters, by name. ``examples=`` is the number of examples in this batch, for
    batches that are padded; ``begins=True`` says that a task begins with this batch. A loss that
    is not finite begins a trial where it is finite at the start (one forward pass); then the
    network has diverged, and "goes on" is impossible. Otherwise it is no evidence. Parameters that
    are not finite themselves stay so, whatever an update adds to them: keep them finite, with
    ``optax.apply_if_finite`` around ``inner``.

    Args:
        inner: any optax optimizer that needs no readings of single examples.
        hazard: $p$ in [0, 1], per step: the odds against a switch.
        examples: $B > 0$, the number of independent examples that the loss is the mean of.
        trial: steps of a trial, at least 1; fewer than an epoch where examples are seen again.
        masks: trees of booleans, or functions from parameters to one, which arrays start anew.
            Default: `layer_masks`.

    Returns:
        The optimizer; its state is a `LayerHypothesesState`.

    Raises:
        ValueError: a number is out of its range, a mask is not like the parameters, or ``params``
            is missing at ``update``.
        TypeError: ``inner`` is no optimizer, or ``value`` or ``value_fn`` is missing at ``update``.
    """
    refuse_schedule("wrappers.partial_switches.layer_hypotheses", "hazard", hazard)
    UNIT_INTERVAL.check_annotated("layer_hypotheses", "hazard", hazard, float)
    POSITIVE.check_annotated("layer_hypotheses", "examples", examples, float)
    POSITIVE.check_annotated("layer_hypotheses", "trial", trial, int)
    if not isinstance(inner, Optimizer):
        raise TypeError(f"layer_hypotheses: inner must be an optax optimizer, got {inner!r}.")
    wrapped: Any = forwarding(inner)
    usual = examples

    def chosen(params: PyTree) -> list[PyTree]:
        if masks is None:
            return layer_masks(params)
        given = [mask(params) if is_function(mask) else mask for mask in masks]
        return [fitted("layer_hypotheses", "a mask", mask, params) for mask in given]

    def rivals_of(params: PyTree, inner_state: Any, start: PyTree) -> tuple[PyTree, Any]:
        """Parameters and states of every hypothesis, before any of them learns."""
        hypotheses = [(params, inner_state)]
        for mask in chosen(params):
            fresh = jax.tree.map(lambda m, new, p: new if m else p, mask, start, params)
            state = renewed(wrapped, inner_state, wrapped.init(fresh), mask)
            hypotheses.append((fresh, state))
        return jax.tree.map(lambda *x: jnp.stack(x), *hypotheses)

    def init(params: PyTree) -> Any:
        params = arrays(params)
        start, inner_state = copied(params), wrapped.init(params)
        count = 1 + len(chosen(params))
        number, counter = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
        return LayerHypothesesState(
            inner_state,
            start,
            *rivals_of(params, inner_state, start),
            log_weights=jnp.zeros(count, jnp.float32),
            leader=counter,
            remaining=counter,
            level=number,
            variance=number,
            seen=counter,
            switch_probability=number,
            surprise=number,
            trials=counter,
        )

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree = None,
        *,
        value: Any = None,
        value_fn: Callable[[PyTree], Any] | None = None,
        examples: ArrayLike = usual,
        begins: ArrayLike = False,
        **extra_args: Any,
    ) -> tuple[PyTree, Any]:
        if params is None:
            raise ValueError(
                "Cannot update layer_hypotheses without params. This is because it resets them; "
                "call update(gradient, state, params, value=..., value_fn=...)."
            )
        if value is None or value_fn is None:
            raise TypeError(
                "layer_hypotheses: update needs value=, the mean loss of the batch in nats, and "
                "value_fn=, the same as a function of parameters."
            )
        updates, params = arrays(updates), arrays(params)
        value = jnp.asarray(value, jnp.float32)
        count, p = state.log_weights.size, jnp.float32(hazard)
        difference = value - state.level
        tiny = jnp.finfo(jnp.float32).tiny
        tail = difference**2 / jnp.maximum(2 * state.variance, tiny)
        surprise = jnp.minimum(examples * jnp.maximum(difference, 0), tail)
        usable = (state.seen >= WARM_UP) & jnp.isfinite(value)
        surprise = jnp.where(usable, surprise, 0).astype(jnp.float32)
        finite = jnp.isfinite(value)
        at_start = lax.cond(
            finite, lambda: value, lambda: jnp.asarray(value_fn(state.prior_mean), jnp.float32)
        )
        diverged = ~finite & jnp.isfinite(at_start)
        suspected = usable & (jax.scipy.special.logit(p) + surprise > 0)
        told = jnp.asarray(begins, bool)
        starts = told | ((state.remaining == 0) & (suspected | diverged))

        def go_on() -> tuple[PyTree, Any]:
            moved, inner_state = wrapped.update(
                updates, state.inner_state, params, value=value, value_fn=value_fn, **extra_args
            )
            gain = 1 / (jnp.minimum(state.seen, 4 * trial - 1) + 1)
            variance = (1 - gain) * (state.variance + gain * difference**2)
            return moved, state._replace(
                inner_state=inner_state,
                level=jnp.where(finite, state.level + gain * difference, state.level),
                variance=jnp.where(finite, variance, state.variance),
                seen=state.seen + finite,
                switch_probability=jnp.zeros_like(state.switch_probability),
                surprise=surprise,
            )

        def held() -> tuple[PyTree, Any]:
            """The hypotheses in trial; that of the leader may have been changed from outside."""
            rivals, now = (state.rivals, state.rival_states), (params, state.inner_state)
            return jax.tree.map(lambda x, new: x.at[state.leader].set(new), rivals, now)

        def try_all() -> tuple[PyTree, Any]:
            rivals = lax.cond(
                starts, lambda: rivals_of(params, state.inner_state, state.prior_mean), held
            )
            leader = jnp.where(starts, 0, state.leader)
            others = jnp.full(count - 1, jnp.log(p / max(count - 1, 1)))
            goes_on = jnp.where(told, -jnp.inf, jnp.log1p(-p))
            prior = jnp.concatenate([goes_on[None], others])
            weights = jnp.where(starts, prior, state.log_weights)

            def learn(hypothesis: tuple[Array, tuple[PyTree, Any]]) -> Any:
                k, (at, inner_state) = hypothesis
                loss, gradient = jax.value_and_grad(value_fn)(at)
                loss = jnp.where(k == leader, value, loss)
                gradient = jax.tree.map(
                    lambda given, own: jnp.where(k == leader, given, own), updates, gradient
                )
                moved, inner_state = wrapped.update(
                    gradient, inner_state, at, value=loss, value_fn=value_fn, **extra_args
                )
                return loss, (optax.apply_updates(at, moved), inner_state)

            losses, rivals = lax.map(learn, (jnp.arange(count), rivals))
            known = jnp.isfinite(losses)
            evidence = jnp.where(known, -jnp.asarray(examples) * losses, -jnp.inf)
            weights = jax.nn.log_softmax(weights + jnp.where(jnp.any(known), evidence, 0))
            leader = jnp.argmax(weights).astype(jnp.int32)
            target, inner_state = jax.tree.map(lambda x: x[leader], rivals)
            moved = jax.tree.map(jnp.subtract, target, params)
            return moved, state._replace(
                inner_state=inner_state,
                rivals=rivals[0],
                rival_states=rivals[1],
                log_weights=weights,
                leader=leader,
                remaining=jnp.where(starts, trial, state.remaining) - 1,
                level=jnp.zeros_like(state.level),
                variance=jnp.zeros_like(state.variance),
                seen=jnp.zeros_like(state.seen),
                switch_probability=-jnp.expm1(weights[0]),
                surprise=surprise,
                trials=state.trials + starts,
            )

        return lax.cond(starts | (state.remaining > 0), try_all, go_on)

    return optax.GradientTransformationExtraArgs(init, update)
