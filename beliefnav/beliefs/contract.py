r"""What every belief has in common: its posterior, its online filter, its diagnostics."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

PyTree = Any


class Posterior(NamedTuple):
    r"""What is believed about the landscape at the present parameters, per entry.

    Each field is a tree like the parameters, or ``None`` where nothing is believed.

    Attributes:
        gradient_mean: $m = E[\nabla L]$.
        gradient_variance: $\mathrm{Var}[\nabla L]$.
        curvature_mean: $V$, the mean of the diagonal of the Hessian (in Adam: $E[g^2]$ read as
            curvature); never the variance of the gradient.
        curvature_variance: the mean squared deviation of the curvature from ``curvature_mean``.
        gradient_curvature_covariance: the covariance of the two.
    """

    gradient_mean: PyTree = None
    gradient_variance: PyTree = None
    curvature_mean: PyTree = None
    curvature_variance: PyTree = None
    gradient_curvature_covariance: PyTree = None


class TaskPosterior(NamedTuple):
    r"""What is believed about the landscape where tasks may switch: a `Posterior` and a hazard.

    Attributes:
        gradient_mean: as in `Posterior`, as are the next four.
        gradient_variance: $\mathrm{Var}[\nabla L]$.
        curvature_mean: $V$.
        curvature_variance: of the curvature.
        gradient_curvature_covariance: of the two.
        hazard: the expected probability that the task switches before the next observation, a
            scalar.
    """

    gradient_mean: PyTree = None
    gradient_variance: PyTree = None
    curvature_mean: PyTree = None
    curvature_variance: PyTree = None
    gradient_curvature_covariance: PyTree = None
    hazard: PyTree = None


class Info(NamedTuple):
    """What one observation did to a belief: for looking at, never needed for the next step.

    Each field is a tree like the parameters, or ``None`` where the belief has no such thing; a
    belief about all parameters together has one scalar for ``log_density`` and ``surprise``. In a
    jitted step, fields that nobody reads cost nothing.

    Attributes:
        innovation: observation minus its prediction; 0 where missing.
        log_density: log predictive density of the observation; 0 where missing, and 0 where the
            prior is improper, so that the belief conditions on its first observation.
        gain: the weight that the posterior mean gave to the innovation.
        missing: True where the observation was not finite and so was not used.
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


class State(Protocol):
    """A belief after an observation: it holds all that is needed to read it."""

    def posterior(self) -> Posterior:
        """Read the belief."""
        ...


class Filter(NamedTuple):
    r"""Exact online inference, as three pure functions on trees like the parameters.

    One step of a learner is ``update(predict(state, displacement), gradient)``. A predicted belief
    and an updated one have different types, so that a type checker catches a skipped ``predict``.

    Attributes:
        init: ``params -> state``, the prior, before anything is seen. Allocates in float32 or, for
            float64 parameters, in float64.
        predict: ``(state, displacement) -> predicted``. ``displacement`` is the step that the
            parameters really took since the last observation, or ``None``.
        update: ``(predicted, gradient, curvature) -> (state, Info)``. ``curvature`` is an optional
            second sensor. An entry that is NaN or infinite is not observed: its belief stays as
            predicted.
        uses_displacement: whether ``predict`` reads ``displacement``; an optimizer then keeps the
            previous parameters to measure it.
    """

    init: Callable[[PyTree], Any]
    predict: Callable[..., Any]
    update: Callable[..., tuple[Any, Info]]
    uses_displacement: bool = False

    def filter(self) -> "Filter":
        """Return itself: a filter can be given wherever a belief is asked for."""
        return self


@runtime_checkable
class Belief(Protocol):
    """Anything with a ``filter()``: the models of this package, a `Filter`, or your own."""

    def filter(self) -> Filter:
        """Return the online filter of this belief."""
        ...
