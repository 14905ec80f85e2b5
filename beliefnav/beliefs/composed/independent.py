r"""Two beliefs about one stream, each held as if the other did not exist."""

from typing import Any, NamedTuple

from beliefnav.beliefs.contract import Belief, Filter, Info, Posterior

PyTree = Any


class IndependentState(NamedTuple):
    """The states of the two beliefs."""

    gradient_belief: Any
    curvature_belief: Any

    def posterior(self) -> Posterior:
        """The gradient fields of the one, the curvature fields of the other."""
        gradient = self.gradient_belief.posterior()
        curvature = self.curvature_belief.posterior()
        return Posterior(
            gradient.gradient_mean,
            gradient.gradient_variance,
            curvature.curvature_mean,
            curvature.curvature_variance,
        )


class IndependentPredicted(NamedTuple):
    """The predictions of the two beliefs."""

    gradient_belief: Any
    curvature_belief: Any


class Independent(NamedTuple):
    """Two beliefs about one stream, made by `independent`."""

    gradient: Belief
    curvature: Belief

    def filter(self) -> Filter:
        """Both filters side by side; diagnostics are those of the gradient's.

        Returns:
            A filter whose states are `IndependentState`.
        """
        one, other = self.gradient.filter(), self.curvature.filter()

        def init(params: PyTree) -> IndependentState:
            return IndependentState(one.init(params), other.init(params))

        def predict(state: IndependentState, displacement: PyTree = None) -> IndependentPredicted:
            return IndependentPredicted(
                one.predict(state.gradient_belief, displacement),
                other.predict(state.curvature_belief, displacement),
            )

        def update(
            predicted: IndependentPredicted, gradient: PyTree, curvature: PyTree = None
        ) -> tuple[IndependentState, Info]:
            first, info = one.update(predicted.gradient_belief, gradient, curvature)
            second, _ = other.update(predicted.curvature_belief, gradient, curvature)
            return IndependentState(first, second), info

        return Filter(init, predict, update, one.uses_displacement or other.uses_displacement)


def independent(*, gradient: Belief, curvature: Belief) -> Independent:
    r"""Join a belief about the gradient and one about the curvature, on one stream.

    Each is held as if the other did not exist. There is no joint generative model of which this is
    the exact filter: a gradient with a drifting level (the one belief) does not have mean zero (the
    other). It is the approximation that Adam makes.

    Args:
        gradient: the belief whose gradient mean and variance are taken.
        curvature: the belief whose curvature mean and variance are taken.

    Returns:
        A belief.

    Example:
        Adam's belief, with Adam's memory:

        >>> from beliefnav import beliefs
        >>> adam = beliefs.independent(
        ...     gradient=beliefs.LocalLevel(0.9).filter(shared=True),
        ...     curvature=beliefs.PrecisionWalk(0.999).filter(shared=True),
        ... )
    """
    return Independent(gradient, curvature)
