r"""Optimum of a task that may be drawn anew, on a landscape whose curvature is read at every step.

The latent state of every parameter is its optimum $\theta^*_t$, near the initial parameters
$\theta_0$. What is seen is the gradient $y_t$ of the mean loss of $B$ examples, a negative
log-likelihood in nats:

$$ \theta^*_{t+1} = \theta_0 + \rho (\theta^*_t - \theta_0) + N(0, (1 - \rho^2) v_0), \qquad
   y_t = h_t (\theta_t - \theta^*_t) + N(0, h_t / B), \qquad \theta^*_0 \sim N(\theta_0, v_0), $$

with $\rho = 1 - p$. The first is the best linear belief about an optimum that is drawn anew with
the hazard $p$ a step. In the second the curvature of a likelihood is also the variance of the
gradient of one example: both are the Fisher information $h_t$, which is read.

In parameters, with the gradients $g_i$ of the examples, whose sum is $B y_t$, the filter is

$$ m \leftarrow \theta_0 + \rho (m - \theta_0), \quad
   v \leftarrow \rho^2 v + (1 - \rho^2) v_0, \qquad
   1/v \leftarrow 1/v + \sum_i g_i^2, \quad m \leftarrow m - v \sum_i g_i $$

for gradients at $m$, as they would be; those at $\theta_t$ are carried over by $h_t$. It keeps the
distance $\theta^*_t - \theta_t$ and the position $\theta_t - \theta_0$.

**A prior variance that is learned.** The readings so far say of an entry of the optimum what one
reading of the precision $1/v - 1/v_0$ would say. Their evidence for $v_0$, pooled over the entries
$i$ of an array, is therefore known from $m$ and $v$ alone. It has its maximum where

$$ v_0 = \frac{w v_s + \sum_i (m_i - \theta_{0,i})^2}{w + \sum_i \gamma_i}, \qquad
   \gamma_i = 1 - v_i / v_0, $$

in which $\sum_i \gamma_i$ counts the entries that are well determined, and a prior around the start
$v_s$, of the weight of $w = 0.1$ entries, keeps $v_0$ positive. Every update takes one step of this
fixed point, by a factor of 4 at most, and changes the prior below what was read:

$$ r_i = \frac{1}{\gamma_i + v_i / v_0'}, \qquad
   m_i \leftarrow \theta_{0,i} + r_i (m_i - \theta_{0,i}), \quad v_i \leftarrow r_i v_i. $$

Both are exact for a hazard of 0, and an approximation for others.

**A hazard that is learned.** At each step the reading is predicted twice, as of a task that goes on
and as of one that is drawn anew. The ratio of the two densities, multiplied over all entries,
weighs a grid of hazards and gives the probability $\pi_t$ of a switch; the two posteriors are mixed
as $(1 - \pi_t) m^{\text{on}} + \pi_t m^{\text{new}}$, and their variances with the weights
$(1 - \pi_t)^2$ and $1 - (1 - \pi_t)^2$.

**A prior mean that moves.** What tasks have in common is a better guess for the next one than
$\theta_0$. With a rate $\kappa$ the prior mean follows the belief by
$\theta_0 \leftarrow \theta_0 + \kappa p (m - \theta_0)$ after every update. That is an average of
$m$ with a memory of $1/\kappa$ tasks of the mean length $1/p$, and no inference: the filter takes
each value of $\theta_0$ for known.

Reference:
    MacKay (1992), "Bayesian interpolation", equations 4.8 and 4.9, for the prior variance and the
    number of well-determined parameters.
"""

import math
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from beliefnav import _trees
from beliefnav._checks import FINITE, POSITIVE, UNIT_INTERVAL, is_concrete, is_number
from beliefnav._format import counted, number, reciprocal
from beliefnav.beliefs import _program
from beliefnav.beliefs._linear_gaussian import check_displacement
from beliefnav.beliefs._program import Stream
from beliefnav.beliefs.contract import Belief, Fact, Filter, Info, Posterior
from beliefnav.beliefs.tasks import _tasks
from beliefnav.beliefs.tasks._tasks import Hazard
from beliefnav.beliefs.tasks.hazard_grid import HazardGrid, on_grid

__all__ = ["FisherOptimum", "FisherOptimumPredicted", "FisherOptimumState", "initial_variance"]

PyTree = Any
MOST = 4.0
"""The factor by which a prior variance that is learned changes at most in one step."""
WEIGHT = 0.1
"""How many well-determined entries the start of a prior variance counts as."""


class FisherOptimumState(NamedTuple):
    r"""The optimum after an observation.

    Attributes:
        distance_mean: the mean of $\theta^* - \theta$, a tree like the parameters.
        distance_variance: $v$, its variance, a tree like the parameters.
        position: $\theta - \theta_0$, a tree like the parameters. The parameters of the last
            observation minus ``position`` are what this belief takes for the start.
        initial_variances: $v_0$ of every array [leaf], if it is that of the initial parameters or
            learned.
        switch_probability: of a switch just before the last observation, a scalar. It is $p$ where
            that is given: this belief then expects switches, and does not look for them.
        reset_fraction: the share of its way to $\theta_0$ that the mean went before that, a scalar.
        surprise: the mean over observed entries of the squared innovation in units of its variance,
            a scalar; 1 where the belief is right.
        start_variances: $v_s$ of every array [leaf], if the prior variance is learned.
        hazard_belief: the grid of hazards with its weights, if the hazard is learned.
    """

    distance_mean: PyTree
    distance_variance: PyTree
    position: PyTree
    initial_variances: Array | None
    switch_probability: Array
    reset_fraction: Array
    surprise: Array
    start_variances: Array | None = None
    hazard_belief: Hazard | None = None

    def posterior(self) -> Posterior:
        """How far the optimum is, with its variance, and the hazard."""
        learned = self.hazard_belief
        return Posterior(
            distance_mean=self.distance_mean,
            distance_variance=self.distance_variance,
            hazard=self.switch_probability if learned is None else _tasks.expected(learned),
        )


class FisherOptimumPredicted(NamedTuple):
    """The optimum before an observation; fields as in `FisherOptimumState`."""

    distance_mean: PyTree
    distance_variance: PyTree
    position: PyTree
    initial_variances: Array | None
    start_variances: Array | None = None
    hazard_belief: Hazard | None = None


class FisherOptimum(Belief):
    r"""Optimum that may be drawn anew, curvature read (equations in the module docstring).

    Without a reading of the curvature the filter takes $h_t = B y_t^2$. Its expectation is that of
    the mean square over examples plus $(B - 1)$ times the squared mean of the gradient: right at an
    optimum, too large far from it, where steps are too short then.

    The loss must be in nats: $B$ times the loss in other units, or another $B$, is another noise,
    and the evidence for a hazard or a prior variance would be of that noise.

    Attributes:
        hazard: $p$ in [0, 1], per step; or a `HazardGrid`, to learn it. All parameters then switch
            together, and the filter sees when. Without readings of the curvature nothing is learned
            of it: $h_t$ and the noise would be of the same gradient that they judge.
        examples: $B > 0$, the number of examples whose mean gradient is seen at a step.
        prior_variance: $v_0 > 0$, a number, an array or a tree like the parameters, in units of the
            squared parameter. ``None``: that of the entries of each initial array, which is one of
            ``prior_mean`` where that is given (`initial_variance`).
        learn_variance: whether the prior variance is learned, one number for each array, from
            ``prior_variance``, or its mean over the array, as the start $v_s$.
        prior_mean: $\theta_0$, a tree like the parameters, around which optima are drawn anew.
            Default: the parameters at ``init``. Where it is given, the first optimum is believed to
            be near the parameters at ``init``, with the variance $v_0$: as after a training of
            which nothing is left but the parameters.
        prior_mean_rate: $\kappa$ in [0, 1], how fast the prior mean follows the belief, in units of
            the hazard; 0: it stays.

    Raises:
        ValueError: a number is out of its range, as far as it is known; the error names it.
    """

    ranges: ClassVar = {
        "hazard": UNIT_INTERVAL,
        "examples": POSITIVE,
        "prior_mean_rate": UNIT_INTERVAL,
    }

    hazard: ArrayLike | HazardGrid
    examples: ArrayLike
    prior_variance: PyTree = None
    learn_variance: bool = eqx.field(static=True, default=False)
    prior_mean: PyTree = None
    prior_mean_rate: ArrayLike = 0.0

    def filter(self) -> Filter:
        """The online filter, exact for a hazard and a prior variance that are given.

        A missing entry is predicted only, and so is one whose reading of the curvature is negative
        or not finite. A reading of 0 beside a gradient that is not 0, as of examples that say
        nothing of it, is no reading.

        Returns:
            A filter whose states are `FisherOptimumState`. Its ``init`` raises a ``ValueError`` if
            the prior mean or variance does not fit the parameters, its ``predict`` without a
            displacement.

        Raises:
            ValueError: the prior mean moves, and the hazard is learned.
        """
        owner = "FisherOptimum"
        learned = isinstance(self.hazard, HazardGrid)
        moves = not learned and not is_number(self.prior_mean_rate, 0)
        # An injected rate is an array, and 0 unless somebody asked for more.
        if learned and is_concrete(self.prior_mean_rate) and self.prior_mean_rate != 0:
            raise ValueError(
                "Cannot use prior_mean_rate with a HazardGrid. This is because the rate is in "
                "units of a hazard that is given; give a number for the hazard, or a rate of 0."
            )

        def prior(like: PyTree, scales: Array | None) -> PyTree:
            if scales is None:
                return _trees.spread(owner, "prior_variance", self.prior_variance, like)
            leaves, treedef = jax.tree.flatten(like)
            return treedef.unflatten(
                [jnp.full_like(x, s) for x, s in zip(leaves, scales, strict=True)]
            )

        def init(params: PyTree) -> FisherOptimumState:
            wide = _trees.full_like(params, 0)
            scales = None
            start, moved = self._start(params)
            if self.prior_variance is None:
                scales = _stacked(initial_variance(start), wide)
            else:
                POSITIVE.check_leaves(owner, "prior_variance", self.prior_variance)
            if self.learn_variance and scales is None:
                scales = _stacked(jax.tree.map(_mean, prior(wide, None)), wide)
            first = None if scales is None or not self.learn_variance else jnp.array(scales)
            variance = jax.tree.map(jnp.array, prior(wide, scales))  # which can be donated
            nothing = [_trees.scalar_like(params, 0.0) for _ in range(3)]
            hazard = self._hazard_prior(wide)
            return FisherOptimumState(
                wide,
                variance,
                moved,
                scales,
                *nothing,
                start_variances=first,
                hazard_belief=hazard,
            )

        def predict(
            state: FisherOptimumState, displacement: PyTree = None
        ) -> FisherOptimumPredicted:
            check_displacement(owner, displacement)
            # Where the hazard is learned, `update` pulls by what the reading says of a switch.
            p = jnp.zeros(()) if learned else jnp.asarray(self.hazard)

            def mean(d: Array, x: Array, moved: Array) -> Array:
                return (d - p * (d + x) - _trees.wide(moved, d.dtype)).astype(d.dtype)

            def variance(v: Array, v0: Array) -> Array:
                return (v + p * (2 - p) * (v0 - v)).astype(v.dtype)

            v0 = prior(state.distance_variance, state.initial_variances)
            return FisherOptimumPredicted(
                jax.tree.map(mean, state.distance_mean, state.position, displacement),
                jax.tree.map(variance, state.distance_variance, v0),
                jax.tree.map(lambda x, d: x + d.astype(x.dtype), state.position, displacement),
                state.initial_variances,
                state.start_variances,
                state.hazard_belief,
            )

        def update(
            predicted: FisherOptimumPredicted, gradient: PyTree, curvature: PyTree = None
        ) -> FisherOptimumState:
            like = (0, 0, 0, 0)
            mean, variance, surprise, seen = _trees.unzip(
                self._condition, like, *predicted[:2], gradient, curvature
            )
            hazard = predicted.hazard_belief
            if hazard is None:
                p = _trees.scalar_like(mean, self._given_hazard())
            else:
                anew = fresh(predicted)
                p, hazard, _ = self._weigh(predicted, anew, hazard, gradient, curvature)
                other = _trees.unzip(self._condition, like, *anew, gradient, curvature)
                mean, variance = _mixed(p, mean, variance, *other[:2])
            scales = predicted.initial_variances
            if predicted.start_variances is not None:
                mean, variance, scales = _learned(predicted, mean, variance)
            position = predicted.position
            if moves:
                followed = p * self.prior_mean_rate

                def behind(x: Array, d: Array) -> Array:
                    return (x - followed * (d + x)).astype(x.dtype)

                position = jax.tree.map(behind, position, mean)
            return FisherOptimumState(
                mean,
                variance,
                position,
                scales,
                switch_probability=p,
                reset_fraction=p,
                surprise=_mean_seen(surprise, seen).astype(p.dtype),
                start_variances=predicted.start_variances,
                hazard_belief=hazard,
            )

        def fresh(predicted: FisherOptimumPredicted) -> tuple[PyTree, PyTree]:
            """Distance and variance of an optimum that is drawn anew."""
            v0 = prior(predicted.distance_variance, predicted.initial_variances)
            return jax.tree.map(jnp.negative, predicted.position), v0

        def diagnose(
            predicted: FisherOptimumPredicted, gradient: PyTree, curvature: PyTree = None
        ) -> Info:
            like = Info(0, 0, 0, 0, 0)
            info = _trees.unzip(self._diagnose, like, *predicted[:2], gradient, curvature)
            if predicted.hazard_belief is not None:
                p, hazard, density = self._weigh(
                    predicted, fresh(predicted), predicted.hazard_belief, gradient, curvature
                )
                expected = _tasks.expected(hazard)
                return info._replace(log_density=density, switch_probability=p, hazard=expected)
            p = _trees.scalar_like(predicted.distance_mean, self._given_hazard())
            return info._replace(switch_probability=p, hazard=p)

        def anew(
            predicted: FisherOptimumPredicted, state: FisherOptimumState
        ) -> FisherOptimumState:
            one = jnp.ones_like(state.switch_probability)
            distance, variance = fresh(predicted)
            return state._replace(
                distance_mean=distance,
                distance_variance=variance,
                position=predicted.position,
                initial_variances=predicted.initial_variances,
                hazard_belief=predicted.hazard_belief,
                switch_probability=one,
                reset_fraction=one,
            )

        return Filter(
            init,
            predict,
            update,
            diagnose,
            uses_displacement=True,
            uses_curvature=True,
            anew=anew,
            examples=self.examples,
        )

    def _start(self, params: PyTree) -> tuple[PyTree, PyTree]:
        """Where optima are drawn anew, and how far from there the parameters are."""
        still = _trees.full_like(params, 0)
        if self.prior_mean is None:
            return params, still
        given = _trees.fitted(self.name, "prior_mean", self.prior_mean, params)
        FINITE.check_leaves(self.name, "prior_mean", given)
        _trees.check_shapes(self.name, "prior_mean", given, params)
        start = jax.tree.map(lambda x, m: jnp.asarray(m, x.dtype), still, given)
        return start, jax.tree.map(lambda p, m: jnp.asarray(p, m.dtype) - m, params, start)

    def _given_hazard(self) -> ArrayLike:
        """The hazard, where it is not learned."""
        assert not isinstance(self.hazard, HazardGrid)
        return self.hazard

    def _hazard_prior(self, like: PyTree) -> Hazard | None:
        """The belief about a hazard that is learned, in arrays of its own."""
        if not isinstance(self.hazard, HazardGrid):
            return None
        dtype = _trees.wide_dtype(*jax.tree.leaves(like))
        return Hazard(*(jnp.array(x, dtype) for x in on_grid(self.name, self.hazard)))

    def _weigh(
        self,
        predicted: FisherOptimumPredicted,
        anew: tuple[PyTree, PyTree],
        hazard: Hazard,
        gradient: PyTree,
        curvature: PyTree,
    ) -> tuple[Array, Hazard, Array]:
        """The probability of a switch, the hazard after it, the log density of all entries."""
        # Where the examples say nothing the gradient would have to judge itself: no reading.
        read = jax.tree.map(lambda h: jnp.where(h == 0, -1, h), curvature)

        def density(distance: PyTree, variance: PyTree) -> Array:
            like = Info(0, 0, 0, 0, 0)
            trees = distance, variance, gradient, read
            return _tasks.total(_trees.unzip(self._diagnose, like, *trees).log_density)

        on, new = density(*predicted[:2]), density(*anew)
        ratio = new - on if curvature is not None else jnp.zeros_like(on)
        ratio = jnp.where(jnp.isfinite(ratio), ratio, 0).astype(hazard.log_weights.dtype)
        stay, switch = _tasks.transition(hazard.hazards, jnp.ones((), bool))
        switch = hazard.log_weights + switch + ratio
        weights = jnp.logaddexp(hazard.log_weights + stay, switch)
        total = jax.nn.logsumexp(weights)
        probability = jnp.exp(jax.nn.logsumexp(switch) - total)
        return probability, Hazard(hazard.hazards, weights - total), on + total.astype(on.dtype)

    def _meet(self, d: Array, v: Array, y: Array, h: Array | None) -> "_Met":
        """What one array meets, with a reading of its curvature or none."""
        y = y.astype(d.dtype)
        alone = jnp.asarray(self.examples * y**2)
        h = alone if h is None else jnp.where(h == 0, alone, h.astype(d.dtype))
        # What would overflow below is not observed either.
        sizes = _trees.is_observed(y) & jnp.isfinite(self.examples * h) & jnp.isfinite(h * d)
        seen = sizes & (h > jnp.finfo(d.dtype).tiny)
        weight = jnp.asarray(self.examples * jnp.where(seen, h, 0))
        h = jnp.where(seen, h, 1)
        error = jnp.where(seen, y + h * d, 0)
        scale = jnp.sqrt(h / self.examples) * jnp.sqrt(1 + weight * v)  # whose square may overflow
        return _Met(seen, error, scale, weight, v / (1 + weight * v))

    def _condition(
        self, d: Array, v: Array, y: Array, h: Array | None
    ) -> tuple[Array, Array, Array, Array]:
        """Mean and variance of one array, and how surprising its reading was, where it was one."""
        met = self._meet(d, v, y, h)
        mean = d - met.shrunk * self.examples * met.error
        shrunk = jnp.maximum(met.shrunk, jnp.finfo(d.dtype).tiny ** 0.75)  # can be inverted
        surprise = (met.error / met.scale) ** 2
        return mean.astype(d.dtype), shrunk.astype(v.dtype), surprise, met.seen

    def _diagnose(self, d: Array, v: Array, y: Array, h: Array | None) -> Info:
        met = self._meet(d, v, y, h)
        surprise = (met.error / met.scale) ** 2
        density = -(math.log(2 * math.pi) + surprise) / 2 - jnp.log(met.scale)
        density = jnp.where(met.seen, density, 0)
        return Info(met.error, density, met.shrunk * met.weight, ~met.seen, surprise)

    def facts(self, quantity: str = "gradient", time: str = "step") -> tuple[Fact, ...]:
        """How long tasks are, the prior of their optima, and where the curvature is from."""
        del quantity
        spread, length = "given", "learned"
        if self.learn_variance:
            spread = "learned, an array"
        elif self.prior_variance is None:
            spread = "variance of the initial array"
        elif jax.tree.structure(self.prior_variance) == jax.tree.structure(0):
            spread = f"variance {number(self.prior_variance)}"
        around = "the initial parameters" if self.prior_mean is None else "the given prior mean"
        if not is_number(self.prior_mean_rate, 0):
            around += ", which then follows the belief"
        followed = "It is looked for."
        if not isinstance(self.hazard, HazardGrid):
            length = counted(reciprocal(self.hazard), time)
            followed = "It is followed by a linear filter."
        return (
            Fact(
                "task length",
                length,
                f"On average; then the optimum is drawn anew. {followed}",
            ),
            Fact("optimum prior", spread, f"Around {around}, for every task."),
            Fact(
                "curvature", "read", "At every step: it is the variance of an example's gradient."
            ),
        )

    def program(self, stream: Stream) -> Array:
        r"""The joint program; the readings $h_t$ of the curvature are given, positive.

        Sites: ``optimum``, the path of $\theta^*_t - \theta_0$ [step, ...], ``gradient``
        (deterministic) and ``observation``.
        """
        import numpyro
        from numpyro import distributions as dist
        from numpyro.contrib.control_flow import scan

        owner = self.name
        if self.learn_variance or isinstance(self.hazard, HazardGrid):
            raise ValueError(
                f"Cannot write {owner} as a NumPyro program. This is because its filter learns the "
                "hazard or the prior variance; give numbers, and learn_variance=False."
            )
        if self.prior_mean is not None or not is_number(self.prior_mean_rate, 0):
            raise ValueError(
                f"Cannot write {owner} as a NumPyro program. This is because the program has no "
                "prior mean of its own; leave out prior_mean and prior_mean_rate."
            )
        if self.prior_variance is None:
            raise ValueError(f"{owner}: the NumPyro program needs a prior_variance.")
        displacement, readings = stream.displacement, stream.curvature
        assert displacement is not None
        got = readings and readings.values
        if got is None or got.shape != displacement.shape:
            raise ValueError(
                f"{owner}: the NumPyro program needs a curvature of the shape of the displacement, "
                f"{displacement.shape}, got {None if got is None else got.shape}."
            )
        position = jnp.cumsum(_program.moved(displacement), 0)
        stay = 1 - jnp.asarray(self.hazard)
        scale = jnp.broadcast_to(jnp.sqrt(self.prior_variance), stream.shape)
        fresh = jnp.sqrt(1 - stay**2) * scale

        def step(before: Any, now: Any) -> Any:
            position, started, h, value, seen = now
            law = dist.Normal(stay * before, jnp.where(started, fresh, scale))
            optimum = numpyro.sample("optimum", law)
            gradient = h * (position - optimum)
            law = dist.Normal(gradient, jnp.sqrt(h / self.examples))
            return optimum, (gradient, _program.observe(law, value, seen))

        started = jnp.arange(stream.num_steps) > 0
        xs = (position, started, got, stream.values, stream.seen)
        gradients, observed = scan(step, jnp.zeros(stream.shape), xs)[1]
        numpyro.deterministic("gradient", gradients)
        return observed


def _mixed(
    probability: Array, mean: PyTree, variance: PyTree, other_mean: PyTree, other_variance: PyTree
) -> tuple[PyTree, PyTree]:
    """Two posteriors as one, ``probability`` that of the other.

    The spread of their means is left out: it would be some 1,000 times the variances of a network.
    """

    def weighed(weight: Array, x: Array, other: Array) -> Array:
        weight = weight.astype(x.dtype)
        return (1 - weight) * x + weight * other

    wide = probability * (2 - probability)
    means = jax.tree.map(lambda *x: weighed(probability, *x), mean, other_mean)
    return means, jax.tree.map(lambda *x: weighed(wide, *x), variance, other_variance)


def _learned(
    predicted: FisherOptimumPredicted, mean: PyTree, variance: PyTree
) -> tuple[PyTree, PyTree, Array]:
    """One step of the fixed point for the prior variance of each array, and what it changes."""
    assert predicted.initial_variances is not None and predicted.start_variances is not None
    distances, treedef = jax.tree.flatten(mean)
    positions, variances = (treedef.flatten_up_to(x) for x in (predicted.position, variance))
    arrays = zip(
        distances,
        positions,
        variances,
        predicted.initial_variances,
        predicted.start_variances,
        strict=True,
    )
    means, wide, scales = [], [], []
    for d, x, v, v0, start in arrays:
        v0, start = v0.astype(v.dtype), start.astype(v.dtype)
        determined, far = jnp.clip(1 - v / v0, 0, 1), d + x
        scale = WEIGHT * start + jnp.sum(far**2)
        scale = scale / (WEIGHT + jnp.sum(determined))
        scale = jnp.where(jnp.isfinite(scale), scale, v0)
        scale = jnp.clip(scale, v0 / MOST, v0 * MOST)
        ratio = 1 / (determined + v / scale)
        means.append(d + (ratio - 1) * far)
        wide.append(jnp.maximum(ratio * v, jnp.finfo(v.dtype).tiny ** 0.75))
        scales.append(scale)
    learned = jnp.array(scales, predicted.initial_variances.dtype)
    return treedef.unflatten(means), treedef.unflatten(wide), learned


class _Met(NamedTuple):
    """An observation of one array: where there was one, its error and scale, what it weighs."""

    seen: Array
    error: Array
    scale: Array
    weight: Array
    shrunk: Array


def initial_variance(params: PyTree) -> PyTree:
    r"""The variance of the entries of each array of initial parameters, as a prior for its optimum.

    An array whose entries are all the same, such as biases of zero or scales of one, was not drawn
    from any distribution that could be seen. Of it is believed what is of the other arrays of its
    layer (the same node of the tree), on average; without any, $1/n$, with $n$ the length of its
    last axis. It is never 0, which would hold the array where it is.

    Args:
        params: the initial parameters.

    Returns:
        A tree like ``params``, of scalars; scale it, or replace some, for a prior of your own.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from beliefnav import beliefs
        >>> layer = {"weight": jnp.array([[0.5, -0.5]]), "bias": jnp.zeros(1)}
        >>> beliefs.initial_variance({"layer": layer, "scale": jnp.ones(4)})["layer"]["bias"].item()
        0.25
        >>> beliefs.initial_variance({"layer": layer, "scale": jnp.ones(4)})["scale"].item()
        0.25
    """
    leaves, treedef = jax.tree.leaves_with_path(_trees.unboxed(params)), jax.tree.structure(params)
    own = [_variance(x) for _, x in leaves]
    layers: dict[Any, list[Array]] = {}
    for (path, _), variance in zip(leaves, own, strict=True):
        layers.setdefault(path[:-1], []).append(variance)

    def believed(path: Any, x: Array, variance: Array) -> Array:
        others = jnp.stack(layers[path[:-1]])
        drawn = jnp.sum(others > 0)
        alone = 1 / max(1, x.shape[-1] if x.ndim else 1)
        constant = jnp.where(
            drawn > 0, others.sum() / jnp.maximum(drawn, 1).astype(others.dtype), alone
        )
        return jnp.where(variance > 0, variance, constant)

    pairs = zip(leaves, own, strict=True)
    return treedef.unflatten([believed(path, x, v) for (path, x), v in pairs])


def _variance(x: Array) -> Array:
    """0 where there is nothing to take it of."""
    dtype = _trees.wide_dtype(x.dtype)
    if isinstance(x, jax.ShapeDtypeStruct) or x.size < 2:
        return jnp.zeros((), dtype)
    x = x.astype(dtype)
    # Equal entries have no variance, and not one of rounding.
    return jnp.where(jnp.max(x) == jnp.min(x), 0, jnp.var(x))


def _stacked(scalars: PyTree, like: PyTree) -> Array:
    """One array [leaf], which is no tree like the parameters, whose shardings it could not have."""
    leaves = jax.tree.leaves(scalars)
    dtype = _trees.wide_dtype(*jax.tree.leaves(like))
    return jnp.array(leaves, dtype) if leaves else jnp.zeros(0, dtype)


def _mean(x: Array) -> Array:
    """The mean of the entries; 1 of none."""
    return jnp.mean(x) if x.size else jnp.ones((), x.dtype)


def _mean_seen(values: PyTree, seen: PyTree) -> Array:
    """The mean of the entries that are seen, where the others are 0; 0 of none."""
    sums = [jnp.sum(x) for x in jax.tree.leaves(values)]
    total = sum(sums, jnp.zeros((), _trees.wide_dtype(*sums)))
    count = sum((jnp.sum(x) for x in jax.tree.leaves(seen)), jnp.zeros((), int))
    return total / jnp.maximum(count, 1).astype(total.dtype)
