"""Resetting those layers of any optimizer that a new task needs anew."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.typing import ArrayLike

from beliefnav._checks import POSITIVE
from beliefnav._format import counted, number, reciprocal
from beliefnav._trees import arrays, unboxed
from beliefnav.beliefs.contract import Fact
from beliefnav.navigation import SENSED, check_spelling, forwarding
from beliefnav.wrappers import _anew
from beliefnav.wrappers.contract import check_optimizer, wrapper

__all__ = ["LayerHypothesesState", "layer_hypotheses", "layer_masks"]

PyTree = Any
WARM_UP = 10
"""Batches without a suspicion, from which the level of the loss is learned."""
LEAST = 1e-30
"""The hazard that 0 is in a trial, which then has another reason than the hazard."""
GUESS, WORTH = 0.01, 100.0
"""The hazard that one that is learned starts from, and the steps that this is worth."""
MANY = 2.0**23
"""Counts are halved where their sum has come so far: float32 adds 1 up to twice as much."""


class LayerHypothesesState(NamedTuple):
    """State of `layer_hypotheses`.

    Attributes:
        inner_state: of the optimizer, under the hypothesis that leads.
        prior_mean: the start, a tree like the parameters.
        rivals: the parameters under the hypotheses that do not lead [slot, ...].
        rival_states: the states of the optimizer under these [slot, ...], whose named tuples are
            plain ones: what looks for names in a state finds those of ``inner_state``.
        slots: which hypothesis stands in which slot, int32 [slot]; 0 is "the task goes on".
        log_weights: log posterior probabilities of the hypotheses [hypothesis] in a trial.
        leader: the likeliest hypothesis of the last trial, int32.
        remaining: steps that are left of a trial, int32; 0 outside of one.
        level: mean loss of the last batches, in nats.
        variance: of the loss of the last batches.
        seen: batches that these two are from, int32.
        switch_probability: that the task does not go on, a scalar; 0 outside of a trial.
        reset_fraction: the share of entries that the last step took from the start, a scalar: those
            of the mask that took the lead; 0 where none did.
        surprise: log of the ratio of likelihoods that no hypothesis can exceed, in nats.
        trials: number of trials begun, int32.
        switches: in how many steps each hypothesis held [hypothesis], in expectation: the task went
            on, or the arrays of a mask started anew.
    """

    inner_state: Any
    prior_mean: PyTree
    rivals: PyTree
    rival_states: Any
    slots: Array
    log_weights: Array
    leader: Array
    remaining: Array
    level: Array
    variance: Array
    seen: Array
    switch_probability: Array
    reset_fraction: Array
    surprise: Array
    trials: Array
    switches: Array


def layer_masks(params: PyTree) -> list[PyTree]:
    """Which arrays start anew: all; then the last and the first layers, in the tree's order.

    Arrays of one parent in the tree are one layer. Three layers have five masks; of more layers,
    the last one, the last half, the first one and the first half are taken. The order of a dict is
    that of jax, which sorts its keys: ``head`` comes before ``hidden``. Where names do not stand in
    the order of layers, give masks of your own.
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


def layer_hypotheses_facts(
    hazard: ArrayLike | None,
    examples: ArrayLike,
    trial: int = 20,
    masks: Sequence[PyTree | Callable[[PyTree], PyTree]] | None = None,
    prior_mean: PyTree = None,
    *,
    restart_schedule: bool = True,
) -> tuple[Fact, ...]:
    """What `layer_hypotheses` assumes, of the same arguments but the inner optimizer."""
    del restart_schedule
    _check(hazard, examples, trial)
    tried = "all; last and first layers" if masks is None else f"{len(masks)} given"
    start = "the initial parameters" if prior_mean is None else "given"
    if hazard is None:
        length, learned = "learned", f"; {GUESS:.0%} a step at first, worth {WORTH:g} steps"
    else:
        length, learned = counted(reciprocal(hazard), "step"), ""
    return (
        Fact(
            "task length",
            length,
            f"On average; then the task switches. Trials say whether it has{learned}.",
        ),
        Fact("layers anew", tried, "One of these sets of arrays starts anew with a new task."),
        Fact("trial", counted(trial, "step"), "Every set learns from as many batches."),
        Fact(
            "evidence",
            f"{number(examples)} examples a batch",
            "Their mean loss is a negative log-likelihood, in nats, of independent examples.",
        ),
        Fact("task prior", start, "Where the arrays of a set start anew."),
        Fact("approximation", "", "A trial begins only where a batch is surprising."),
        Fact("approximation", "", "The likeliest hypothesis is followed, and no mean of them."),
        Fact("approximation", "", "Likelihoods are taken at points, without variances."),
    )


@wrapper(layer_hypotheses_facts)
def layer_hypotheses(
    inner: optax.GradientTransformation,
    hazard: ArrayLike | None,
    examples: ArrayLike,
    trial: int = 20,
    masks: Sequence[PyTree | Callable[[PyTree], PyTree]] | None = None,
    prior_mean: PyTree = None,
    *,
    restart_schedule: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""Find out which layers of a network a new task needs anew, and reset those.

    The hypotheses are that the task goes on, and that the arrays of one of $K$ ``masks`` start
    anew: their parameters from the initial ones, their part of the state of ``inner`` fresh. Other
    arrays keep state and schedule. A counter starts anew if all arrays do that it stands beside.

    A trial begins when a batch is surprising. With the mean $\bar L$ and the variance $s^2$ of the
    loss $L$ of the last batches, of $B$ examples each, and the hazard $p$, that is where

    $$ \mathrm{logit}\, p + \min\{B (L - \bar L),\ (L - \bar L)^2 / 2 s^2\} > 0 : $$

    no hypothesis can explain the batch much better than the network explained those before. The
    level is learned anew after a trial, so that none begins in the 10 batches after it. For
    ``trial`` steps every hypothesis $k$ then learns from every batch, and its log weight
    $\log w_k$, at first $\log p_0 = \log(1-p)$ or $\log p_k = \log (p/K)$, falls by $B L_k$, the
    loss before it learns from the batch. The parameters are those of the likeliest hypothesis at
    every step. Losses are compared at points: what is not known of parameters would widen a
    likelihood, and is left out.

    **A hazard that is learned.** With ``hazard=None`` every set of arrays has a hazard of its own,
    the mean under a Dirichlet posterior,

    $$ p_k = \frac{a_k + n_k}{\sum_j (a_j + n_j)}, \qquad a_0 = 99,\ a_1 = \dots = a_K = 1/K, $$

    and $p = \sum_{k \ge 1} p_k$. A step counts for "goes on"; of every trial one step counts for
    the hypotheses, by the weights $w_k$ that the trial ends with, whatever it began from. The
    counts $n$ are ``switches`` in the state; they are halved when their sum reaches $2^{23}$ steps.

    A prefix of fresh layers under a trained head is worse than chance at first; a trial shows what
    a single batch cannot. Long trials prefer what learns the present task soonest, which may cost
    plasticity: on random labels of 320 digits, batches of 16, trials of 20 steps reset all layers
    at 19 of 19 switches, and the online accuracy stays at .65 over 20 tasks; with trials of 160
    steps, which mostly reset the head, it falls from .70 to .40 (Adam at 3e-3, one seed).

    **Cost.** Outside of a trial a step has no further pass. In a trial it has one forward and one
    backward pass for each of $K$ masks, one mask after the other. Under ``jax.vmap``, which takes
    both branches, every step pays for them: use ``jax.lax.map`` over seeds. With $S$ trees of the
    parameters' size in the state of ``inner`` this state has $1 + S + K (1 + S)$. Those are 18 for
    Adam and the five masks of a network of three or more layers, where `two_hypothesis` has 3; they
    are 6 with one mask. In a trial a step needs $K (1 + S)$ more for a while.

    ``update`` needs two more arguments by name, ``value``, the mean loss of the batch in nats, and
    ``value_fn``, the same as a function of parameters. ``optax.tree.get(state, name)`` reads the
    scalars of `LayerHypothesesState`.

    **A network that diverged.** A loss that is not finite begins a trial where that at the start is
    (one forward pass). Then "goes on" is impossible, as is every hypothesis whose loss is not
    finite. Otherwise such a loss is no evidence. A reset is an update, which is added: parameters
    $10^7$ times as large as the start (in bfloat16, 256 times) end near 0 and not at the start, and
    parameters that are not finite themselves stay so. ``optax.apply_if_finite`` around ``inner``
    keeps them finite.

    **A task that is known to begin.** With ``update(..., task_begins=True)``, a boolean that may be
    traced, a trial begins with this batch, and "goes on" is impossible: the trial finds out which
    layers start anew. Where it is known that all of them do, use `two_hypothesis`.

    **Batches of unequal size.** ``update(..., examples=n)`` is the number of examples that this
    batch has, as of a padded one; ``inner`` gets it too.

    **After a resume from parameters alone** give ``prior_mean``, the parameters that training
    started from. Nothing else tells them: ``init`` takes the parameters that it gets for the start.

    Args:
        inner: any optax optimizer that needs no readings of single examples.
        hazard: $p$ in [0, 1], the probability of a switch per step; ``None`` to learn it. With 0 a
            trial begins only where a task is said to begin or the network has diverged.
        examples: $B > 0$, the number of independent examples that the loss is the mean of.
        trial: steps of a trial, at least 1; fewer than an epoch where examples are seen again.
        masks: trees of booleans, or functions from parameters to one, which arrays start anew.
            Default: `layer_masks`.
        prior_mean: the start, a tree like the parameters. Default: the parameters at ``init``.
        restart_schedule: whether schedules of ``inner`` begin again where all arrays do. If not,
            their counters go on over the whole run.

    Returns:
        The optimizer; its state is a `LayerHypothesesState`.

    Raises:
        ValueError: a number is out of its range or there are no masks; at ``init``, a mask or the
            prior mean is not like the parameters, or the start is not finite; at ``update``,
            ``params`` is missing, ``value`` is not a scalar, or a reading beside the gradient is
            given, such as ``per_example_grads``.
        TypeError: ``hazard`` is a schedule or ``inner`` no optimizer; at ``update``, ``value`` or
            ``value_fn`` is missing, ``value_fn`` is no function, or an extra argument is nearly the
            name of one that is known, as ``task_begin``.

    Example:
        The sign of what a hidden unit feeds changes; the trial finds that its head starts anew:

        >>> import jax, jax.numpy as jnp, optax
        >>> from beliefnav.wrappers.partial_switches import layer_hypotheses
        >>> start = {"body": jnp.ones(2), "head": jnp.zeros(())}
        >>> head = {"body": False, "head": True}
        >>> def loss(params, x, y):
        ...     return jnp.mean((params["head"] * (x @ params["body"]) - y) ** 2) / 2
        >>> optimizer = layer_hypotheses(
        ...     optax.sgd(0.05), hazard=1e-3, examples=32, masks=[True, head]
        ... )
        >>> @jax.jit
        ... def step(params, state, x, y):
        ...     value_fn = lambda params: loss(params, x, y)
        ...     value, grads = jax.value_and_grad(value_fn)(params)
        ...     updates, state = optimizer.update(
        ...         grads, state, params, value=value, value_fn=value_fn
        ...     )
        ...     return optax.apply_updates(params, updates), state
        >>> params, state = start, optimizer.init(start)
        >>> for sign in (1.0, -1.0):
        ...     for key in jax.random.split(jax.random.key(0), 200):
        ...         x = jax.random.normal(key, (32, 2))
        ...         params, state = step(params, state, x, sign * x @ jnp.array([1.0, -1.0]))
        ...     print(state.trials, state.leader)
        0 0
        1 2
    """
    _check(hazard, examples, trial)
    check_optimizer("layer_hypotheses", inner)
    if masks is not None and not masks:
        raise ValueError(
            "Cannot use layer_hypotheses without masks. This is because it would have one "
            "hypothesis; leave masks out for `layer_masks`, or use the optimizer itself."
        )
    wrapped = forwarding(inner)
    usual = examples

    def chosen(params: PyTree) -> list[PyTree]:
        if masks is None:
            return layer_masks(params)
        return [_anew.chosen_by("layer_hypotheses", mask, params) for mask in masks]

    def anew(params: PyTree, inner_state: Any, start: PyTree) -> tuple[PyTree, Any]:
        """Parameters and states under every mask [mask, ...], before any of them learns."""
        one, yes = jnp.float32(1), jnp.array(True)
        hypotheses = []
        for mask in chosen(params):
            at = _anew.where_chosen(mask, start, params)
            fresh = wrapped.init(at)
            state = _anew.started_anew(
                wrapped, inner_state, fresh, mask, restart_schedule, one, yes
            )
            hypotheses.append((at, _plain(_anew.quiet(state), params)))
        return jax.tree.map(_stacked, *hypotheses)

    def init(params: PyTree) -> Any:
        params = arrays(params)
        start = _anew.start_of("layer_hypotheses", prior_mean, params)
        inner_state = wrapped.init(params)
        count = len(chosen(params))
        nothing, counter = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
        return LayerHypothesesState(
            inner_state,
            start,
            *anew(params, inner_state, start),
            slots=jnp.arange(1, count + 1, dtype=jnp.int32),
            log_weights=jnp.zeros(1 + count, jnp.float32),
            leader=counter,
            remaining=counter,
            level=nothing,
            variance=nothing,
            seen=counter,
            switch_probability=nothing,
            reset_fraction=nothing,
            surprise=nothing,
            trials=counter,
            switches=jnp.zeros(1 + count, jnp.float32),
        )

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
        _anew.check_params("layer_hypotheses", params)
        _anew.check_losses("layer_hypotheses", value, value_fn, "")
        assert value_fn is not None
        for name in SENSED:
            if extra_args.get(name) is not None:
                raise ValueError(
                    f"Cannot give {name} to layer_hypotheses. This is because it is read at the "
                    "parameters of one hypothesis, and others learn from the batch too; wrap an "
                    "optimizer that learns from gradients alone, or use two_hypothesis."
                )
        updates, params = arrays(updates), arrays(params)
        if examples is not None:
            extra_args["examples"] = examples
        size = jnp.asarray(usual if examples is None else examples, jnp.float32)
        count = state.slots.size
        prior = _prior(hazard, state.switches)
        p = prior[1:].sum() if hazard is None else jnp.float32(hazard)
        goes_on = jnp.zeros(1 + count, jnp.float32).at[0].set(1)

        def loss_at(at: PyTree) -> Array:
            return _anew.scalar("layer_hypotheses", "the result of value_fn", value_fn(at))

        loss = _anew.scalar("layer_hypotheses", "value", value)
        finite = jnp.isfinite(loss)
        difference = jnp.where(finite, loss - state.level, 0)
        tiny = jnp.finfo(jnp.float32).tiny
        tail = difference**2 / jnp.maximum(2 * state.variance, tiny)
        surprise = jnp.minimum(size * jnp.maximum(difference, 0), tail)
        usable = finite & (state.seen >= WARM_UP)
        surprise = jnp.where(usable, surprise, 0)
        suspected = usable & (jax.scipy.special.logit(p) + surprise > 0)
        at_start = lax.cond(finite, lambda: loss, lambda: loss_at(state.prior_mean))
        diverged = ~finite & jnp.isfinite(at_start)
        told = _anew.told(task_begins)
        starts = told | ((state.remaining == 0) & (suspected | diverged))

        def learn(gradient: PyTree, inner_state: Any, at: PyTree, value: Any) -> Any:
            return wrapped.update(
                gradient, inner_state, at, value=value, value_fn=value_fn, **extra_args
            )

        def go_on() -> tuple[PyTree, Any]:
            moved, inner_state = learn(updates, state.inner_state, params, value)
            gain = 1 / (jnp.minimum(state.seen, 4 * trial - 1) + 1).astype(jnp.float32)
            variance = (1 - gain) * (state.variance + gain * difference**2)
            # As wide as the parameters, as a reset is.
            moved = jax.tree.map(lambda u, p: u.astype(jnp.result_type(u, p)), moved, params)
            return moved, state._replace(
                inner_state=inner_state,
                level=state.level + gain * difference,
                variance=jnp.where(finite, variance, state.variance),
                seen=state.seen + finite,
                switch_probability=jnp.zeros_like(state.switch_probability),
                reset_fraction=jnp.zeros_like(state.reset_fraction),
                surprise=surprise,
                switches=_counted(state.switches + goes_on),
            )

        def compare() -> tuple[PyTree, Any]:
            rivals, slots = lax.cond(
                starts,
                lambda: (
                    anew(params, state.inner_state, state.prior_mean),
                    jnp.arange(1, count + 1, dtype=jnp.int32),
                ),
                lambda: ((state.rivals, state.rival_states), state.slots),
            )
            leader = jnp.where(starts, 0, state.leader)
            at_first = jnp.log(jnp.maximum(prior, LEAST / count))
            at_first = at_first.at[0].set(jnp.where(told, -jnp.inf, jnp.log1p(-p)))
            weights = jnp.where(starts, at_first, state.log_weights)
            before = _anew.quiet(state.inner_state)
            step, shown = learn(updates, state.inner_state, params, value)
            own = optax.apply_updates(params, step), _plain(_anew.quiet(shown), params)

            def rival(hypothesis: tuple[PyTree, Any]) -> Any:
                at, plain = hypothesis
                known = jax.tree.structure(before).unflatten(jax.tree.leaves(plain))
                known = jax.tree.map_with_path(_of_no_task, known, before)
                loss, gradient = jax.value_and_grad(loss_at)(at)
                moved, known = learn(gradient, known, at, loss)
                return loss, (optax.apply_updates(at, moved), _plain(known, params))

            losses, rivals = lax.map(rival, rivals)
            losses = jnp.zeros(1 + count, losses.dtype).at[leader].set(loss).at[slots].set(losses)
            known = jnp.isfinite(losses)
            evidence = jnp.where(known, -size * losses, -jnp.inf)
            told_apart = jnp.any(known & (weights > -jnp.inf))  # one at least is left
            weights = jax.nn.log_softmax(weights + jnp.where(told_apart, evidence, 0))
            best = jnp.argmax(weights).astype(jnp.int32)
            # A new leader and the old one change places.
            changes, slot = best != leader, jnp.argmax(slots == best)
            target, taken = jax.tree.map(lambda x: x[slot], rivals)
            moved = jax.tree.map(lambda t, p, u: jnp.where(changes, t - p, u), target, params, step)
            led = jax.tree.map(lambda t, o: jnp.where(changes, t, o), taken, own[1])
            rivals = jax.tree.map(
                lambda x, o: x.at[slot].set(jnp.where(changes, o, x[slot])), rivals, own
            )
            inner_state = jax.tree.structure(before).unflatten(jax.tree.leaves(led))
            shares = [0.0, *map(_share, chosen(params), [params] * count)]
            shares = jnp.array(shares, jnp.float32)
            remaining = jnp.where(starts, trial, state.remaining) - 1
            # A trial counts where it ends, or where the next one cuts it.
            cut = starts & (state.remaining > 0)
            ended = jnp.where(cut, jnp.exp(state.log_weights), jnp.exp(weights))
            held = jnp.where(cut | (remaining == 0), ended, goes_on)
            return moved, state._replace(
                inner_state=_anew.shown_as(inner_state, shown),
                rivals=rivals[0],
                rival_states=rivals[1],
                slots=slots.at[slot].set(jnp.where(changes, leader, slots[slot])),
                log_weights=weights,
                leader=best,
                remaining=remaining,
                level=jnp.zeros_like(state.level),
                variance=jnp.zeros_like(state.variance),
                seen=jnp.zeros_like(state.seen),
                switch_probability=-jnp.expm1(weights[0]),
                reset_fraction=jnp.where(changes, shares[best], 0),
                surprise=surprise,
                trials=state.trials + starts,
                switches=_counted(state.switches + held),
            )

        return lax.cond(starts | (state.remaining > 0), compare, go_on)

    return optax.GradientTransformationExtraArgs(init, update)


def _prior(hazard: ArrayLike | None, switches: Array) -> Array:
    """The probabilities of the hypotheses at a step [hypothesis]: "goes on", then every mask."""
    count = switches.size - 1
    if hazard is None:
        held = WORTH * _prior(GUESS, switches) + switches
        return held / held.sum()
    p = jnp.float32(hazard)
    return jnp.full(1 + count, p / count).at[0].set(1 - p)


def _counted(switches: Array) -> Array:
    return jnp.where(switches.sum() < MANY, switches, switches / 2)


def _check(hazard: Any, examples: Any, trial: Any) -> None:
    given = 0.0 if hazard is None else hazard
    _anew.check_arguments("partial_switches.layer_hypotheses", given, examples)
    POSITIVE.check_annotated("layer_hypotheses", "trial", trial, int)


def _stacked(*arrays: Any) -> Any:
    """Arrays as one with an axis in front, or what stands for it before there are arrays."""
    first = arrays[0]
    if isinstance(first, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((len(arrays), *first.shape), first.dtype)
    return jnp.stack(arrays)


def _plain(node: Any, params: PyTree) -> Any:
    """A state whose named tuples are plain ones, but for trees like the parameters."""
    if not isinstance(node, tuple | list | dict) or isinstance(node, optax.MaskedNode):
        return node
    if jax.tree.structure(node) == jax.tree.structure(params):
        return node
    if isinstance(node, dict):
        return {key: _plain(x, params) for key, x in node.items()}
    parts = [_plain(x, params) for x in node]
    return parts if isinstance(node, list) else tuple(parts)


def _of_no_task(path: tuple[Any, ...], x: Array, now: Array) -> Array:
    """What belongs to no task is that of the leader, which somebody may have changed."""
    return now if _anew.stays(path, x) else x


def _share(mask: PyTree, params: PyTree) -> float:
    """The share of entries that a mask chooses."""
    sizes = [x.size for x in jax.tree.leaves(params)]
    chosen = sum(n for n, m in zip(sizes, jax.tree.leaves(mask), strict=True) if m)
    return chosen / max(sum(sizes), 1)
