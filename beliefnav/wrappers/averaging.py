r"""Iterate averaging: a belief about where the optimum is, read off the path of any optimizer.

A learner of a noisy loss ends where its last step put it. Its iterates are noisy readings of the
optimum, and what to hand over is the posterior mean of a level that is seen through them: an
average. What is assumed of the level is the memory of the average.

On a quadratic this is more than an analogy. With steps $\theta_{t+1} = \theta_t - a y_t$ on
gradients $y_t = h (\theta_t - \theta^*) + N(0, R)$ each gradient is a reading of the optimum,
$z_t = \theta_t - y_t / h = \theta^* + N(0, R/h^2)$, whose plain average is the posterior mean under
a flat prior, and

$$ \tfrac1T \sum_t z_t = \tfrac1T \sum_t \theta_t + \frac{\theta_{T+1} - \theta_1}{a h T} : $$

the average of the iterates and a boundary term, which is all that needs $h$, and vanishes as
$a h T$ grows. So does what the average lacks beside the posterior mean: where $a h T$ is not large,
along directions of small curvature, the start is still remembered.

Reference:
    Ruppert, "Efficient estimations from a slowly convergent Robbins-Monro process", Cornell
    University, 1988. Polyak and Juditsky, "Acceleration of stochastic approximation by averaging",
    SIAM J. Control and Optimization 30, 1992. Bach and Moulines, "Non-strongly-convex smooth
    stochastic approximation with convergence rate O(1/n)", NeurIPS 2013. Dieuleveut, Durmus and
    Bach, "Bridging the gap between constant step size stochastic gradient descent and Markov
    chains", Annals of Statistics 48, 2020 (on losses that are not quadratic, the average rests a
    multiple of the rate away from the optimum). Izmailov et al., "Averaging weights leads to wider
    optima and better generalization", UAI 2018 (averages of networks, one iterate an epoch). Maddox
    et al., "A simple baseline for Bayesian uncertainty in deep learning", NeurIPS 2019 (the spread
    of the path as a variance). Mandt, Hoffman and Blei, "Stochastic gradient descent as approximate
    Bayesian inference", JMLR 18, 2017.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.typing import ArrayLike

from beliefnav import _trees
from beliefnav._checks import Range, is_number
from beliefnav._format import counted, number
from beliefnav.beliefs import PolynomialLevel
from beliefnav.beliefs._discounting import mean_gain
from beliefnav.beliefs.contract import Belief, Fact
from beliefnav.navigation import check_real, forwarding
from beliefnav.wrappers.contract import check_optimizer, wrapper
from beliefnav.wrappers.task_switches import TwoHypothesisState

__all__ = ["IterateAveragingState", "iterate_averaging"]

PyTree = Any

WHOLE = Range(lambda x: x >= 1 and x % 1 == 0, "a positive whole number")

MEMORY = PolynomialLevel(2.0)
"""Weights near $t^2$, of the last third of the path: it forgets the start, and averages noise."""


class IterateAveragingState(NamedTuple):
    """State of `iterate_averaging`.

    Attributes:
        inner_state: of the optimizer.
        average: the belief about the optimum, as it is predicted for the next reading: its
            ``mean`` is the average, a tree like the parameters in float32 or wider, its
            ``sample_size`` a scalar.
        path_variance: the weighted mean square of the iterates around their average, a tree like
            the parameters; ``None`` unless asked for.
        next_gain: the weight that the present parameters get at the next update, a scalar; 0 where
            that does not read them.
        averaged_calls: number of updates since the start, or since the task switched, int32.
    """

    inner_state: Any
    average: Any
    path_variance: PyTree
    next_gain: Array
    averaged_calls: Array

    def believed_optimum(self, params: PyTree) -> tuple[PyTree, PyTree]:
        """Mean and variance of what was averaged, of the parameters that this state is about.

        Args:
            params: the present ones, which are taken in if the next update would; ``None``: those
                of the updates so far alone.

        Returns:
            Two trees like the average; the second is ``None`` where no variance is held.
        """
        if params is None:
            return self.average.mean, self.path_variance
        params, mean = _trees.arrays(params), self.average.mean
        own = _matched(params, mean)
        if own is None:
            given, averaged = (_trees.listed(_described(tree)) for tree in (params, mean))
            raise ValueError(
                "Cannot say where the optimum is. This is because params are not like those that "
                f"are averaged: they are {given}, and the average is of {averaged}."
            )
        # A host may keep arrays in boxes, also scalars.
        gain, size = jax.tree.leaves((self.next_gain, self.average.sample_size))
        mean, variance = _taken(mean, self.path_variance, gain, own)
        known = (gain > 0) | (size > 0)

        def present(m: Array, p: Array) -> Array:
            # An entry that was never taken in is 0.
            taken = known & (_trees.is_observed(p) | (m != 0))
            return jnp.where(taken, m, p.astype(m.dtype))

        return jax.tree.map(present, mean, own), variance

    def memory(self) -> float:
        """How many iterates are remembered: the sample size, as it is predicted."""
        return float(jax.tree.leaves(self.average.sample_size)[0])

    def told(self, params: PyTree = None) -> tuple[Fact, ...]:
        """The numbers that are held.

        Args:
            params: the present ones; ``None``: their distance from the average is not told.
        """
        (calls,) = jax.tree.leaves(self.averaged_calls)
        facts = [
            Fact("steps", number(float(calls)), "Since the start, or since the task switched."),
            Fact("memory", counted(self.memory(), "iterate"), "That many are remembered."),
        ]
        if self.path_variance is not None:
            sentence = "Of the iterates around the average: root mean square over all entries."
            facts.append(Fact("spread", number(_root_mean(self.path_variance)), sentence))
        if params is not None:
            mean, _ = self.believed_optimum(params)
            own = _matched(_trees.arrays(params), mean)
            squares = jax.tree.map(lambda m, p: jnp.square(p - m), mean, own)
            sentence = "From the average to the parameters: root mean square over all entries."
            facts.append(Fact("distance", number(_root_mean(squares)), sentence))
        return tuple(facts)

    def forgotten(self, probability: Array, fresh: "IterateAveragingState") -> Any:
        r"""The state after the task has switched with a probability $\pi$; its inner state stays.

        A fresh average knows nothing, and so adds no weight to the mean of two hypotheses: the
        sample size becomes $(1-\pi) n$. Where $\pi > 1/2$ all starts anew.
        """
        switched = probability > 0.5
        own, new = (s._replace(inner_state=None) for s in (self, fresh))
        mixed = jax.tree.map(lambda x, f: jnp.where(switched, f, x), own, new)
        size = self.average.sample_size
        size = jnp.where(
            switched, new.average.sample_size, (1 - probability).astype(size.dtype) * size
        )
        return mixed._replace(
            inner_state=self.inner_state,
            average=mixed.average._replace(sample_size=size),
            next_gain=jnp.where(mixed.next_gain > 0, mean_gain(size + 1), 0),
        )


def iterate_averaging_facts(
    memory: Belief = MEMORY,
    every: ArrayLike = 1,
    variance: bool = False,
) -> tuple[Fact, ...]:
    """What `iterate_averaging` assumes, of the same arguments but the inner optimizer."""
    del variance
    _check(memory, every)
    read = "every step" if is_number(every, 1) else f"1 of {number(every)} steps"
    return (
        *memory.facts("optimum"),
        Fact("optimum reading", read, "The parameters after a step are a reading of the optimum."),
        Fact("approximation", "", "The noise of the readings is taken to be independent."),
    )


@wrapper(iterate_averaging_facts)
def iterate_averaging(
    inner: optax.GradientTransformation,
    memory: Belief = MEMORY,
    every: ArrayLike = 1,
    variance: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Average the iterates of any optimizer, whose path stays as it is.

    With the iterates $\theta_1, \theta_2, \ldots$ after the steps of the optimizer,

    $$ n \leftarrow \beta_t n + 1 , \qquad
       \bar\theta \leftarrow \bar\theta + (\theta_t - \bar\theta) / n , \qquad
       s^2 \leftarrow (1 - \tfrac1n) s^2 + \tfrac1{n-1} (\theta_t - \bar\theta)^2 , $$

    from $n = 0$. It is the exact filter of a level, ``memory``, that is seen through the iterates:

    | memory | $\beta_t$ | average |
    |---|---|---|
    | ``LocalLevel(1.0)`` or ``PolynomialLevel(0.0)`` | 1 | plain (Ruppert; Polyak and Juditsky) |
    | ``PolynomialLevel(p)`` | $(t-1)/(t-1+p)$ | weights near $t^p$: the last $1/(p+1)$ of all |
    | ``LocalLevel(b)`` | $b$ | exponential, the last $1/(1-b)$ steps, corrected for its bias |
    | ``LocalLevel(b, prior_sample_size=1/(1-b))`` | $b$ | exponential, from the first parameters |

    ``beliefnav.optimum(state, params)`` is what to evaluate. The parameters themselves are what to
    train on, and what to take where the average is not the better one: ``optimum(..., value_fn=)``
    compares the two.

    **What is averaged** are the parameters that ``update`` is called with, but for those of the
    first call, at which no step was taken yet; `beliefnav.optimum` takes in those that it is given,
    if the next update would. After $T$ steps it so is the average of the $T$ parameters that
    followed a step, to the digit of a loop that averages what it sees, whatever stands before or
    behind in a chain and changes the step: a clip, a decay, a mask, ``optax.MultiSteps`` outside
    of it. With ``optax.MultiSteps(..., k)`` inside, parameters stand still for k calls: give
    ``every=k``.

    **An average wants another schedule.** Along a direction of curvature h with the rate a, it
    forgets the start in the time $1/(a h)$, and what noise leaves in it falls as $1/T$ whatever the
    rate. Where noise is what is left to reduce, a constant and rather large rate and an average do
    better than any schedule without one; where the start is still remembered along flat directions,
    a schedule that falls to 0 does better; the two together are best of all where both are tuned.

    Which of these it is, the losses of two averages say, one around the other: where p = 8 is lower
    than p = 2 at the rate that is best for p = 2, a schedule ends lower than either. Of the exact
    problems of the experiment that is right on 95 %, and no number that an average holds by itself
    decides as much; ``beliefnav.explain(state, params, value_fn)`` compares, and
    ``.github/AVERAGES.md`` has the numbers. `beliefnav.wrappers.combining` makes averages of other
    powers.

    The default, p = 2, is a compromise. On 200 curvatures 1, 1/2, ..., 1/200, with gradients of the
    variance h, after 300 steps at the constant rate that is best for each, its loss is 0.60 of that
    of the last iterate from a start of variance 1, and 0.25 of it from one of variance 100 (there
    at the largest rates that are stable). Of the plain average these are 0.54 and 1.2, of p = 8
    they are 0.71 and 0.31.

    In float32 an average stands still where its correction, $(\theta_t - \bar\theta)/n$, is less
    than $6 \cdot 10^{-8}$ of it. Of more than some $10^5$ steps, read one in a hundred,
    ``every=100``: the average is the same, and its corrections are a hundred times as large.

    An entry that is not finite is not taken in, and the rest of the average goes on; it counts in
    the sample size, which is one number for all. Averages are held in float32 or wider: in bfloat16
    they would stand still. A step is elementwise: sharded parameters have sharded averages, and
    devices exchange nothing. Statistics that a network keeps of its inputs, as of batch
    normalisation, are those of the path: compute them anew for the average.

    Where `two_hypothesis` stands inside of it or around it, the average forgets as far as the task
    has switched: $n \leftarrow (1-\pi) n$, and all of it where $\pi > 1/2$.

    **The spread of the path is no posterior variance.** With ``variance=True`` the state holds
    $s^2$, from which `beliefnav.sample_params` draws. To first order in the rate $a$, along an
    eigendirection of curvature h, with a preconditioner d and batches of B examples whose gradients
    have the variance C, the iterates of gradient descent have the stationary variance

    $$ s^2 = \frac{a d C}{B h (2 - a d h)} \approx \frac{a d C}{2 B h} , \quad
       \text{the posterior of N examples } v = \frac{1}{N h} , \quad
       \frac{v}{s^2} \approx \frac{2 B}{a d N C} . $$

    With momentum $\mu$, $a/(1-\mu)$ takes the place of a. One number ``scale`` of
    `beliefnav.sample_params` so makes the one of the other only where $d C$ is the same for all
    entries: for a preconditioner that is the inverse of the variance of the gradient. For gradient
    descent (d = 1) the ratio goes as 1/C, so that the path is too narrow where the gradient has
    little noise, and too wide where it has much. Adam near an optimum has $d \approx \sqrt{B/C}$,
    and a ratio that goes as $1/\sqrt{C}$. All of this asks that the noise is stationary and the
    memory is long beside $1/(a d h)$: along flatter directions the iterates have not spread yet.

    Args:
        inner: any optax optimizer.
        memory: what is assumed of the level. Its prior mean and noise variance are not used: the
            prior of an average is the first parameters.
        every: k; the parameters of each k-th call are read. The weights are those that the memory
            has for these steps, and the other calls cost next to nothing.
        variance: whether to hold $s^2$, one more tree in float32.

    Returns:
        The optimizer; its state is an `IterateAveragingState`. ``state.inner_state`` goes on
        without the average, and ``init`` starts one at any time.

    Raises:
        ValueError: ``every`` is known, and no positive whole number; at ``init``, a parameter is no
            real floating-point array; at ``update``, ``params`` is missing.
        TypeError: ``inner`` is no optimizer, or ``memory`` no level.

    Reference:
        The module names the sources of averaging. For the memories: Shamir and Zhang, ICML 2013
        (polynomial); Sandler et al., "Training trajectories, mini-batch losses and the curious role
        of the learning rate", 2023, and Ajroldi, Orvieto and Geiping, "When, where and why to
        average weights?", ICML 2025 (what an average replaces of a schedule, and what not).
        ``optax.lookahead`` and schedule-free optimizers (Defazio et al., "The road less scheduled",
        NeurIPS 2024) average too, and follow their average: `beliefnav.atlas` compares.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from beliefnav import beliefs, optimum, wrappers
        >>> optimizer = wrappers.iterate_averaging(optax.sgd(0.3), beliefs.LocalLevel(1.0))
        >>> params = jnp.array([1.0, -1.0])  # the optimum is 0
        >>> state, path = optimizer.init(params), []
        >>> for key in jax.random.split(jax.random.key(0), 400):
        ...     gradient = params + jax.random.normal(key, (2,))
        ...     updates, state = optimizer.update(gradient, state, params)
        ...     params = optax.apply_updates(params, updates)
        ...     path.append(params)
        >>> bool(jnp.allclose(optimum(state, params), jnp.stack(path).mean(0), atol=1e-6))
        True
        >>> [round(float(jnp.linalg.norm(x)), 2) for x in (params, optimum(state, params))]
        [0.89, 0.05]
    """
    _check(memory, every)
    check_optimizer("iterate_averaging", inner)
    wrapped, filter_ = forwarding(inner), memory.shared_filter()

    def started(params: PyTree, inner_state: Any) -> Any:
        """At these parameters, with nothing averaged."""
        return IterateAveragingState(
            inner_state,
            filter_.init(params)._replace(mean=jax.tree.map(_own, params)),
            _trees.full_like(params, 0) if variance else None,
            next_gain=_trees.scalar_like(params, 0),
            averaged_calls=jnp.zeros((), jnp.int32),
        )

    def init(params: PyTree) -> Any:
        check_real(params)
        params = _trees.arrays(params)
        return started(params, wrapped.init(params))

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, Any]:
        if params is None:
            raise ValueError(
                "Cannot update iterate_averaging without params. This is because it averages them; "
                "call update(gradient, state, params)."
            )
        updates, params = _trees.arrays((updates, params))
        before, spread, gain = _trees.arrays((state.average, state.path_variance, state.next_gain))

        def taken() -> tuple[PyTree, PyTree]:
            return _taken(before.mean, spread, gain, params)

        def not_taken() -> tuple[PyTree, PyTree]:
            return before.mean, spread

        always = is_number(every, 1)
        mean, spread = taken() if always else lax.cond(gain > 0, taken, not_taken)
        size = before.sample_size + (gain > 0).astype(before.sample_size.dtype)
        average = filter_.predict(before._replace(mean=mean, sample_size=size))
        calls: Any = optax.safe_increment(state.averaged_calls)
        gain = mean_gain(average.sample_size + 1)
        if not always:
            gain = jnp.where(calls % every == 0, gain, 0)
        updates, inner_state = wrapped.update(updates, state.inner_state, params, **extra_args)
        after = IterateAveragingState(inner_state, average, spread, gain, calls)
        updates = _after(updates, mean if spread is None else spread, state.averaged_calls)
        if switches := _switches(inner_state):
            there = jax.tree.map(lambda p, u: (p + u).astype(p.dtype), params, updates)
            probability = jnp.max(jnp.stack(switches))
            stages = zip(_stages(state.inner_state), _stages(inner_state), strict=True)
            for earlier, now in stages:  # what was said of a step counts once
                probability = jnp.where(earlier == now, 0, probability)
            after = after.forgotten(probability, started(there, None))
        return updates, after

    return optax.GradientTransformationExtraArgs(init, update)


def _taken(mean: PyTree, variance: PyTree, gain: Array, params: PyTree) -> tuple[PyTree, PyTree]:
    """Average and variance with one more iterate; what is not finite is left out."""
    error = _trees.innovation(params, mean)
    mean = _trees.correct(mean, gain, error)
    if variance is None:
        return mean, None

    def spread(v: Array, m: Array, p: Array) -> Array:
        # In terms of the new average: no pass over memory then needs the old one beside it.
        g = gain.astype(v.dtype)
        odds = jnp.where(g < 1, g / jnp.where(g < 1, 1 - g, 1), 0)
        square = jnp.square(_trees.wide(p, v.dtype) - m)
        return _trees.select(_trees.is_observed(p), (1 - g) * v + odds * square, v)

    return mean, jax.tree.map(spread, variance, mean, params)


def _after(updates: PyTree, read: PyTree, calls: Array) -> PyTree:
    """The updates as they are, from a program in which what was ``read`` visibly comes first.

    Otherwise XLA copies all parameters before a step that updates them in place: the average reads
    them too, and nothing says that it does so before. That ``calls`` are not negative is known to
    us alone.
    """
    read = _matched(read, updates)
    if read is None:  # an optimizer that says nothing of some parameters
        return updates
    return jax.tree.map(lambda u, x: jnp.where(calls >= 0, u, x.astype(u.dtype)), updates, read)


def _matched(tree: PyTree, like: PyTree) -> PyTree:
    """The arrays of a tree where another has them, in its nodes; ``None`` if they are not alike."""
    try:
        own = _trees.fitted("iterate_averaging", "params", tree, like)
    except ValueError:
        return _trees.boxed_as(tree, like)
    alike = jax.tree.map(lambda x, y: jnp.shape(x) == jnp.shape(y), own, like)
    return own if all(jax.tree.leaves(alike)) else None


def _root_mean(squares: PyTree) -> float:
    """The root of the mean over all entries of all arrays."""
    count = sum(x.size for x in jax.tree.leaves(squares))
    return float(jnp.sqrt(optax.tree.sum(squares) / max(count, 1)))


def _described(tree: PyTree) -> list[str]:
    """The name and the shape of every array."""
    return [
        f"{name!r} {list(jnp.shape(x))}".removeprefix("'' ")
        for name, x in _trees.named_leaves(tree)
    ]


def _own(p: Any) -> Any:
    """A parameter in at least float32, in a buffer of its own."""
    dtype = _trees.wide_dtype(jnp.result_type(p))
    if isinstance(p, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(p.shape, dtype, sharding=p.sharding)
    own = jnp.array(p, dtype)
    return _trees.select(_trees.is_observed(own), own, 0)


def _switches(inner_state: PyTree) -> list[Array]:
    """The probabilities of a switch that every `two_hypothesis` inside saw at its last step."""

    def is_switch(x: Any) -> bool:
        return isinstance(x, TwoHypothesisState)

    leaves = jax.tree.leaves(inner_state, is_leaf=is_switch)
    return [x.switch_probability for x in leaves if is_switch(x)]


def _stages(inner_state: PyTree) -> list[Array]:
    """The numbers of steps that every ``optax.MultiSteps`` inside has taken."""

    def is_part(x: Any) -> bool:
        return isinstance(x, optax.MultiStepsState)

    leaves = jax.tree.leaves(inner_state, is_leaf=is_part)
    return [x.gradient_step for x in leaves if is_part(x)]


def _check(memory: Any, every: Any) -> None:
    if not (isinstance(memory, Belief) and memory.averages()):
        raise TypeError(
            "iterate_averaging: memory must be a belief about a level, such as "
            "beliefs.PolynomialLevel(2.0), beliefs.LocalLevel(0.999) or, for the plain average, "
            f"beliefs.LocalLevel(1.0); got {memory!r}."
        )
    WHOLE.check_annotated("iterate_averaging", "every", every, float)
