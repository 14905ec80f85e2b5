r"""What a belief is: all that any part of the library may ask of one.

A belief is an `equinox.Module` of hyper-parameters. What it must say is its online filter. What it
may say besides has a default here, most often a refusal that names what would have to be declared:

| what | where | asked by |
|---|---|---|
| online inference, and what it reads | `Belief.filter` | optimizers, `beliefnav.filters` |
| diagnostics, the predictive density | `Filter.diagnose` | recordings, likelihoods |
| how surprising a reading was, online | `Filter.weigh` | `beliefnav.beliefs.UnknownNoise` |
| which beliefs it holds apart, if of models | `Belief.parts`, `Belief.modelled` | the atlas |
| one number for all entries | `Belief.shared_filter` | `beliefnav.beliefs.shared` |
| what it assumes, in words | `Belief.facts` | `beliefnav.explain` |
| the joint program | `Belief.program`, `Belief.positive_program` | simulation, NUTS over latents |
| variances in other units | `Belief.scaled` | `beliefnav.beliefs.UnknownNoise` |
| the linear-Gaussian form | `Belief.linear_gaussian` | smoothing, whatever is parallel in time |
| another way to a likelihood | `Belief.conjugate`, `Belief.proper` | likelihoods |
| when tasks switched | `Belief.run_lengths` | `beliefnav.filters.change_points` |
| whether its mean is an average | `Belief.averages` | `beliefnav.wrappers.iterate_averaging` |
| where the optimum is, the hazard | `Posterior` | `beliefnav.sample_params`, policies |

A belief that is made of others says for each of these what it makes of theirs, or refuses.
"""

from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from beliefnav._checks import Checked, is_number
from beliefnav._trees import is_observed, select
from beliefnav.beliefs import _program
from beliefnav.beliefs._program import Stream
from beliefnav.beliefs.gaussian import Conditional, Gaussian, Row

PyTree = Any

__all__ = [
    "AsGiven",
    "Belief",
    "BeliefLike",
    "Conjugate",
    "Fact",
    "Filter",
    "Info",
    "LearnedNoise",
    "LinearForm",
    "LinearGaussian",
    "Posterior",
    "RunLengthWeights",
    "Sensor",
    "State",
    "Surprise",
    "as_belief",
    "declared",
]


class Posterior(NamedTuple):
    r"""What is believed about the landscape at the present parameters, per entry.

    Each field is a tree like the parameters, or ``None`` where nothing is believed.

    Attributes:
        gradient_mean: $m = E[\nabla L]$.
        gradient_variance: $\mathrm{Var}[\nabla L]$.
        curvature_mean: $V$, the mean of the diagonal of the Hessian (in Adam: $E[g^2]$ read as
            curvature); never the variance of the gradient, nor the precision of a posterior.
        curvature_variance: the mean squared deviation of the curvature from ``curvature_mean``.
        gradient_curvature_covariance: the covariance of the two.
        distance_mean: the mean of $\theta^* - \theta$, how far the optimum is from the parameters.
        distance_variance: its variance.
        hazard: the expected probability that the task switches before the next observation, a
            scalar.
    """

    gradient_mean: PyTree = None
    gradient_variance: PyTree = None
    curvature_mean: PyTree = None
    curvature_variance: PyTree = None
    gradient_curvature_covariance: PyTree = None
    distance_mean: PyTree = None
    distance_variance: PyTree = None
    hazard: PyTree = None

    def optimum(self, params: PyTree) -> tuple[PyTree, PyTree]:
        r"""Mean and variance of the optimum $\theta^*$.

        Args:
            params: the parameters $\theta$ at the last update.

        Returns:
            Two trees like the parameters.

        Raises:
            ValueError: nothing is believed about where the optimum is.
        """
        if self.distance_mean is None:
            raise ValueError(
                "Cannot say where the optimum is. This is because this belief is about gradients; "
                "use one about the optimum, such as beliefs.Optimum or that of "
                "rules.hazard_filter."
            )
        return jax.tree.map(jnp.add, params, self.distance_mean), self.distance_variance


class Info(NamedTuple):
    """What one observation did to a belief: for looking at, never needed for the next step.

    Each field is a tree like the parameters, or ``None`` where the belief has no such thing; a
    belief about all parameters together has one scalar for ``log_density`` and ``surprise``.

    Attributes:
        innovation: observation minus its prediction; 0 where missing.
        log_density: log predictive density of the observation; 0 where missing, and 0 where the
            prior is improper, so that the belief conditions on its first observation.
        gain: the weight that the posterior mean gave to the innovation.
        missing: True where the observation or its square was not finite, and so was not used.
        surprise: the squared innovation in units of its predictive variance, $e^2/S$, summed over
            the sensors; 0 where missing. A chi-square of one degree a reading, if the belief is
            right.
        predictive_scale: the scale of the predictive density of the gradient, around the gradient
            minus ``innovation``: its standard deviation if it is Gaussian. Infinite where the
            prior is improper, 0 where missing.
        predictive_degrees_of_freedom: those of a Student-t predictive density; ``None`` if it is
            Gaussian.
        switch_probability: of the task having switched just before this observation, given it and
            all before, a scalar.
        hazard: the expected probability of a switch before the next, a scalar.
    """

    innovation: PyTree = None
    log_density: PyTree = None
    gain: PyTree = None
    missing: PyTree = None
    surprise: PyTree = None
    predictive_scale: PyTree = None
    predictive_degrees_of_freedom: PyTree = None
    switch_probability: PyTree = None
    hazard: PyTree = None


class Surprise(NamedTuple):
    r"""What a belief about the noise learns from the readings of one step.

    Attributes:
        square: $\sum e^2/S$ over the readings, a tree like the parameters; 0 where missing.
        count: the number of readings that a proper density predicted, a tree like the parameters.
    """

    square: PyTree
    count: PyTree


class State(Protocol):
    """A belief after an observation: it holds all that is needed to read it."""

    def posterior(self) -> Posterior:
        """Read the belief."""
        ...


class Filter(NamedTuple):
    r"""Online inference, as pure functions on trees like the parameters.

    One step of a learner is ``update(predict(state, displacement), gradient)``. To skip
    ``predict``, or to do it twice, is to believe something else.

    Attributes:
        init: ``params -> state``, the prior, before anything is seen. Allocates in float32 or, for
            float64 parameters, in float64.
        predict: ``(state, displacement) -> predicted``. ``displacement`` is the step that the
            parameters really took since the last observation, or ``None``. A predicted belief may
            be of the type of the state, where it has the same fields.
        update: ``(predicted, gradient, curvature) -> state``. ``curvature`` is an optional second
            sensor. An entry is not observed that is NaN or infinite, or whose square is (in
            float32 one beyond 1.8e19): its belief stays as predicted.
        diagnose: ``(predicted, gradient, curvature) -> Info``, what the observation does to the
            belief. ``None``: nothing is said, and there is no likelihood.
        weigh: ``(predicted, gradient, curvature) -> (state, Surprise)``, the update and how
            surprising the readings were, for a belief around this one. ``None``: not said.
        read: ``(state, fields) -> Posterior``, for a policy that looks at no other ``fields`` of
            it. ``None``: reading the state whole costs no more.
        uses_displacement: whether ``predict`` reads ``displacement``; an optimizer then keeps the
            previous parameters to measure it.
        uses_curvature: whether ``update`` reads ``curvature``.
        needs_curvature: whether an optimizer refuses a step that says nothing of ``curvature``, not
            even ``None``: nothing else tells this belief of it.
        anew: ``predicted, state -> state``, before and after the last observation: the belief about
            a task that begins with it, of which nothing is learned. ``None``: not said.
        examples: how many examples a gradient is taken for the mean of. ``None``: not said.
    """

    init: Callable[[PyTree], Any]
    predict: Callable[..., Any]
    update: Callable[..., Any]
    diagnose: Callable[..., Info] | None = None
    weigh: Callable[..., tuple[Any, Surprise]] | None = None
    read: Callable[[Any, Collection[str]], Posterior] | None = None
    uses_displacement: bool = False
    uses_curvature: bool = False
    needs_curvature: bool = False
    anew: Callable[[Any, Any], Any] | None = None
    examples: ArrayLike | None = None

    def posterior(self, state: Any, fields: Collection[str] | None = None) -> Posterior:
        """What a state believes: all of it, or ``fields`` and whatever comes along."""
        if self.read is None or fields is None:
            return state.posterior()
        return self.read(state, fields)


class Fact(NamedTuple):
    """One assumption: what it is about, its value in physical units, and a sentence.

    Attributes:
        subject: what it is about, in a word or two.
        value: its value, in physical units.
        sentence: what that means.
    """

    subject: str
    value: str
    sentence: str

    def is_about(self, quantity: str) -> bool:
        """Whether the first word of the subject is ``quantity``."""
        return self.subject.split(" ")[0] == quantity


class Sensor(NamedTuple):
    r"""A scalar observation $y = h^\top x + N(0, R)$ of the state of one parameter.

    Attributes:
        row: $h$.
        value: $y$ [...]; NaN or infinite where missing.
        noise_variance: $R > 0$.
    """

    row: Row
    value: Array
    noise_variance: ArrayLike

    def filled(self) -> "Sensor":
        """The same reading with a finite value; a missing one has a row of zeros: nothing said."""
        seen = is_observed(self.value)
        mask = seen.astype(self.value.dtype)
        row = tuple(
            h if is_number(h, 0) else mask if is_number(h, 1) else h * mask for h in self.row
        )
        return Sensor(row, select(seen, self.value, 0), self.noise_variance)


class LinearGaussian(Protocol):
    """A linear-Gaussian model of the stream of each parameter, for whole recordings.

    All methods are about one leaf. ``inputs`` is a tree of arrays [step, ...]; the others see one
    step of it. The model starts at ``prior``, before the transition into the first step.
    """

    def inputs(
        self,
        gradient: Array,
        displacement: Array | None,
        curvature: Array | None,
        context: Any = None,
    ) -> tuple[Any, Any]:
        """What ``transition`` and ``sensors`` need to know, from a recording [step, ...].

        The second result is the ``context`` of a recording that continues this one.
        """
        ...

    def prior(self) -> Gaussian:
        """The belief before the transition into the first step."""
        ...

    def transition(self, inputs: Any) -> Conditional:
        """The transition into a step."""
        ...

    def sensors(self, inputs: Any) -> Sequence[Sensor]:
        """The observations made at a step."""
        ...

    def read(self, belief: Gaussian) -> Posterior:
        """The posterior, from the belief about the state."""
        ...


class LearnedNoise(NamedTuple):
    r"""A noise variance that is learned, in whose units a model states its variances.

    Attributes:
        belief: whose filter learns it, entry by entry.
        read: ``state of that filter -> (s^2, degrees of freedom)``, trees like the parameters.
        prior_scale: $s_0^2$.
        prior_degrees_of_freedom: $\nu_0$.
        discount: $\beta$ of the degrees of freedom.
    """

    belief: "Belief"
    read: Callable[[Any], tuple[PyTree, PyTree]]
    prior_scale: ArrayLike
    prior_degrees_of_freedom: ArrayLike
    discount: ArrayLike


class LinearForm(NamedTuple):
    """A belief taken apart, for algorithms that look back or run in parallel over time.

    Attributes:
        model: linear-Gaussian.
        noise: the unit of its variances, if that is learned; ``None`` if it is 1.
        positive: whether its curvature is read as positive.
    """

    model: LinearGaussian
    noise: LearnedNoise | None = None
    positive: bool = False


class Conjugate(NamedTuple):
    """The density of a whole recording, from sums over the steps of another belief.

    Attributes:
        belief: whose surprise and log density are summed, and are those of every entry.
        join: ``(gradient, curvature, surprise, log_density) -> log density`` of a leaf, the first
            two [step, ...], the last two sums [...].
    """

    belief: "Belief"
    join: Callable[[Array, Array | None, Array, Array], Array]


class RunLengthWeights(NamedTuple):
    """When the present task may have begun, as a belief about switching tasks holds it.

    Attributes:
        run_length: $r$ of each slot, int32 [slot].
        log_weights: logarithms of $w(p, r)$ [grid, slot]; minus infinity where a slot is empty.
        hazards: [grid].
        switch_probability: of a switch just before the last observation, a scalar.
        dropped_mass: sum over all steps of the probability that was dropped, a scalar.
    """

    run_length: Array
    log_weights: Array
    hazards: Array
    switch_probability: Array
    dropped_mass: Array


class Belief(Checked):
    """A belief about the landscape, as a pytree of hyper-parameters.

    Hyper-parameters are leaves: they can be differentiated, vmapped, injected by optax and sampled
    by NUTS. Sizes and flags are static fields. What is given as Python numbers is checked where a
    person constructs the belief, and not when jax rebuilds it.

    Example:
        A gradient that walks at random, which declares what it can: it is an optimizer's belief,
        its noise can be learned, and whole recordings of it are smoothed.

        >>> from typing import Any, NamedTuple
        >>> import jax, jax.numpy as jnp
        >>> from beliefnav import beliefs, filters
        >>> from beliefnav.beliefs import gaussian
        >>>
        >>> class Level(NamedTuple):
        ...     mean: Any
        ...     variance: Any
        ...
        ...     def posterior(self):
        ...         return beliefs.Posterior(self.mean, self.variance)
        >>>
        >>> class Walk(beliefs.Belief):
        ...     drift: float
        ...     noise: float = 1.0
        ...
        ...     def filter(self):
        ...         def init(params):
        ...             start = jnp.zeros_like, jnp.ones_like
        ...             return Level(*(jax.tree.map(f, params) for f in start))
        ...
        ...         def predict(state, displacement=None):
        ...             variance = jax.tree.map(lambda v: v + self.drift, state.variance)
        ...             return state._replace(variance=variance)
        ...
        ...         def error(predicted, gradient):
        ...             return jax.tree.map(jnp.subtract, gradient, predicted.mean)
        ...
        ...         def update(predicted, gradient, curvature=None):
        ...             gain = jax.tree.map(lambda v: v / (v + self.noise), predicted.variance)
        ...             missed = error(predicted, gradient)
        ...             mean = jax.tree.map(lambda m, k, e: m + k * e, predicted.mean, gain, missed)
        ...             return Level(mean, jax.tree.map(lambda k: k * self.noise, gain))
        ...
        ...         def diagnose(predicted, gradient, curvature=None):
        ...             return beliefs.Info(innovation=error(predicted, gradient))
        ...
        ...         def weigh(predicted, gradient, curvature=None):
        ...             surprise = jax.tree.map(
        ...                 lambda e, v: e**2 / (v + self.noise),
        ...                 error(predicted, gradient),
        ...                 predicted.variance,
        ...             )
        ...             once = jax.tree.map(jnp.ones_like, surprise)
        ...             return update(predicted, gradient), beliefs.Surprise(surprise, once)
        ...
        ...         return beliefs.Filter(init, predict, update, diagnose, weigh)
        ...
        ...     def facts(self, quantity="gradient", time="step"):
        ...         drift = f"drift {self.drift} a {time}"
        ...         return (beliefs.Fact(quantity, drift, f"The {quantity} walks at random."),)
        ...
        ...     def linear_gaussian(self):
        ...         return beliefs.LinearForm(self)
        ...
        ...     def inputs(self, gradient, displacement, curvature, context=None):
        ...         return gradient, None
        ...
        ...     def prior(self):
        ...         return gaussian.independent((0.0,), (1.0,))
        ...
        ...     def transition(self, inputs):
        ...         return gaussian.Conditional(((1,),), gaussian.independent((0,), (self.drift,)))
        ...
        ...     def sensors(self, inputs):
        ...         return [beliefs.Sensor((1,), inputs, self.noise)]
        ...
        ...     def read(self, belief):
        ...         return beliefs.Posterior(belief.mean[0], belief.variances[0])
        >>>
        >>> y = jnp.array([1.0, 2.0, 1.5, 3.0])
        >>> smoothed = filters.smooth_recording(Walk(0.1), y)
        >>> bool(jnp.isclose(smoothed.gradient_mean[-1], filters.last_state(Walk(0.1), y).mean))
        True
        >>> noise = filters.last_state(beliefs.UnknownNoise(Walk(0.1)), y).noise_scale
        >>> bool(noise > 0)
        True
    """

    @abstractmethod
    def filter(self) -> Filter:
        """Online inference."""

    @property
    def name(self) -> str:
        """What the belief is called in errors."""
        return type(self).__name__

    def facts(self, quantity: str = "gradient", time: str = "step") -> tuple[Fact, ...]:
        """What it assumes, as sentences.

        Args:
            quantity: what is observed, in a word; ``"curvature"`` where a second sensor is.
            time: the unit of time, in a word; ``"reading"`` where time is counted in readings.
        """
        del quantity, time
        return (Fact("belief", self.name, (type(self).__doc__ or "").split("\n")[0]),)

    def parts(self) -> "tuple[Belief, ...]":
        """Beliefs that are held each as if the others did not exist; by default itself alone."""
        return (self,)

    def shared_filter(self) -> Filter:
        """Online inference that keeps one sample size or variance for all entries."""
        raise declared(self, "keep one sample size for all entries of", "shared_filter()")

    def scaled(self, factor: ArrayLike) -> "Belief":
        """The same belief with every variance multiplied by ``factor``."""
        del factor
        raise declared(self, "change the units of", "scaled(factor)")

    def averages(self) -> bool:
        """Whether its state has the ``mean`` of what was observed and the ``sample_size`` of it."""
        return False

    def proper(self) -> bool:
        """Whether every observation is known to be predicted by a proper density."""
        return True

    def linear_gaussian(self) -> LinearForm | None:
        """The linear-Gaussian model of the stream of each parameter; ``None`` if there is none."""
        return None

    def conjugate(self) -> Conjugate | None:
        """The density of a whole recording otherwise than by its filter; ``None``: by that."""
        return None

    def shared_conjugate(self) -> Conjugate | None:
        """The same of its shared filter."""
        return None

    def run_lengths(self, state: Any) -> RunLengthWeights:
        """When the present task may have begun, from a state of the filter."""
        del state
        raise declared(self, "find switches with", "run_lengths(state)")

    def program(self, stream: Stream) -> Any:
        """The joint NumPyro program of latents and observations on a stream that was read."""
        del stream
        raise declared(self, "simulate or sample the latents of", "program(stream)")

    def modelled(self) -> bool:
        """Whether its filter is that of a generative model; by default, if it has a program."""
        return type(self).program is not Belief.program

    def positive_program(self, stream: Stream) -> Any:
        """The same with a curvature that is known to be positive."""
        del stream
        raise declared(self, "simulate a positive curvature with", "positive_program(stream)")

    def numpyro_model(
        self,
        gradient: ArrayLike | None = None,
        displacement: ArrayLike | None = None,
        curvature: ArrayLike | None = None,
        *,
        num_steps: int | None = None,
        shape: tuple[int, ...] = (),
    ) -> Any:
        r"""The same belief as a NumPyro program, for one array of parameters.

        The latent path is a site, as `program` says; ``observation`` is what is seen, and
        ``curvature_observation`` the readings of a second sensor.

        Args:
            gradient: [step, ...] a recorded stream to condition on; NaN or infinite entries are
                missing. ``None`` to simulate.
            displacement: [step, ...] how far the parameters moved after each observation, for a
                belief that uses it.
            curvature: [step, ...] readings of a second sensor, for a belief that has one.
            num_steps: number of steps to simulate, without ``gradient`` and ``displacement``.
            shape: shape of one simulated observation, without these.

        Returns:
            The observations [step, ...]; those of both sensors, if two are simulated.

        Raises:
            ValueError: the belief has no joint program; both or neither of ``gradient`` and
                ``num_steps`` are given; a belief that uses displacements has none, or they differ
                in shape; there are readings of a sensor that the belief does not have; a prior is
                improper and has nothing to be conditioned on.
        """
        given = gradient, displacement, curvature
        return self.program(_program.read(self.filter(), self.name, *given, num_steps, shape))


def declared(belief: Belief, purpose: str, capability: str) -> ValueError:
    """The refusal of a belief that does not say what is asked.

    Args:
        belief: the one that is asked.
        purpose: what cannot be done, as a verb whose object is the belief.
        capability: what would have to be declared.

    Returns:
        The error, to be raised.
    """
    return ValueError(
        f"Cannot {purpose} {belief.name}. This is because it does not declare {capability}, see "
        "beliefnav.beliefs.Belief."
    )


class AsGiven(Belief):
    """A person's own belief that is no `Belief`: it has a filter and says nothing else.

    Attributes:
        given: anything with a ``filter()``, or a `Filter`.
    """

    given: Any

    def filter(self) -> Filter:
        """The filter of what was given."""
        return self.given if isinstance(self.given, Filter) else self.given.filter()

    @property
    def name(self) -> str:
        """The name of its class."""
        return type(self.given).__name__

    def facts(self, quantity: str = "gradient", time: str = "step") -> tuple[Fact, ...]:
        """Its name, and the first line of its docstring."""
        del quantity, time
        return (Fact("belief", self.name, (type(self.given).__doc__ or "").split("\n")[0]),)


@runtime_checkable
class HasFilter(Protocol):
    """Anything with a ``filter()``."""

    def filter(self) -> Filter:
        """Online inference."""
        ...


BeliefLike = HasFilter | Filter
"""What a person may give where a belief is asked for: a `Belief`, one's own, or its filter."""


def as_belief(given: Any) -> Belief:
    """Take what a person gives as a belief: a `Belief`, anything with a ``filter()``, a `Filter`.

    Raises:
        TypeError: it is none of these.
    """
    if isinstance(given, Belief):
        return given
    if isinstance(given, type) or not isinstance(given, Filter | HasFilter):
        raise TypeError(
            "A belief must be one of beliefnav.beliefs or anything with a filter(), got "
            f"{' '.join(repr(given).split())}. For tasks that switch choose "
            "beliefs.RunLengths(model, capacity), beliefs.TwoHypotheses(model), "
            "beliefs.RunLengthReset(model) or model.linear()."
        )
    return AsGiven(given)
