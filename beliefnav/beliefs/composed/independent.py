r"""Two beliefs about one stream, each held as if the other did not exist."""

from collections.abc import Collection
from typing import Any, NamedTuple

from beliefnav.beliefs._program import Stream
from beliefnav.beliefs._said import is_said
from beliefnav.beliefs.contract import Belief, BeliefLike, Fact, Filter, Info, Posterior, as_belief

__all__ = ["Independent", "IndependentState", "independent"]

PyTree = Any


class IndependentState(NamedTuple):
    """The states of the two beliefs."""

    gradient_belief: Any
    curvature_belief: Any

    def posterior(self) -> Posterior:
        """The gradient fields of the one, the curvature fields of the other."""
        return _joined(self.gradient_belief.posterior(), self.curvature_belief.posterior())


def _joined(gradient: Posterior, curvature: Posterior) -> Posterior:
    return Posterior(
        gradient.gradient_mean,
        gradient.gradient_variance,
        curvature.curvature_mean,
        curvature.curvature_variance,
    )


class Independent(Belief):
    """Two beliefs about one stream, made by `independent`."""

    gradient: BeliefLike
    curvature: BeliefLike

    def filter(self) -> Filter:
        """Both filters side by side, whose states are `IndependentState`.

        Diagnostics are those of the gradient's.
        """
        return self._filter(as_belief(self.gradient).filter(), as_belief(self.curvature).filter())

    def shared_filter(self) -> Filter:
        """Both shared filters side by side."""
        both = as_belief(self.gradient), as_belief(self.curvature)
        return self._filter(*(belief.shared_filter() for belief in both))

    @property
    def name(self) -> str:
        """Its own, and those of the two."""
        gradient, curvature = as_belief(self.gradient).name, as_belief(self.curvature).name
        return f"independent(gradient={gradient}, curvature={curvature})"

    def parts(self) -> tuple[Belief, ...]:
        """The two."""
        return as_belief(self.gradient), as_belief(self.curvature)

    def _filter(self, one: Filter, other: Filter) -> Filter:
        def init(params: PyTree) -> IndependentState:
            state = IndependentState(one.init(params), other.init(params))
            if not is_said(state.gradient_belief, params, "gradient_mean"):
                raise ValueError(
                    f"Cannot take the gradient from {as_belief(self.gradient).name}. This is "
                    "because it says nothing of it (its posterior has no gradient_mean); use a "
                    "belief such as beliefs.LocalLevel, and give one about curvature as curvature=."
                )
            if not is_said(state.curvature_belief, params, "curvature_mean"):
                raise ValueError(
                    f"Cannot take the curvature from {as_belief(self.curvature).name}. This is "
                    "because it says nothing of it (its posterior has no curvature_mean); use a "
                    "belief such as beliefs.PrecisionWalk, or hold it about readings of the "
                    "curvature, beliefs.sensed."
                )
            return state

        def predict(state: IndependentState, displacement: PyTree = None) -> IndependentState:
            return IndependentState(
                one.predict(state.gradient_belief, displacement),
                other.predict(state.curvature_belief, displacement),
            )

        def update(
            predicted: IndependentState, gradient: PyTree, curvature: PyTree = None
        ) -> IndependentState:
            return IndependentState(
                one.update(predicted.gradient_belief, gradient, curvature),
                other.update(predicted.curvature_belief, gradient, curvature),
            )

        def read(state: IndependentState, fields: Collection[str]) -> Posterior:
            return _joined(
                one.posterior(state.gradient_belief, fields),
                other.posterior(state.curvature_belief, fields),
            )

        def diagnose(
            predicted: IndependentState, gradient: PyTree, curvature: PyTree = None
        ) -> Info:
            assert one.diagnose is not None
            return one.diagnose(predicted.gradient_belief, gradient, curvature)

        return Filter(
            init,
            predict,
            update,
            one.diagnose and diagnose,
            read=read,
            uses_displacement=one.uses_displacement or other.uses_displacement,
            uses_curvature=one.uses_curvature or other.uses_curvature,
            needs_curvature=one.needs_curvature or other.needs_curvature,
        )

    def facts(self, quantity: str = "gradient", time: str = "step") -> tuple[Fact, ...]:
        """What the one says that is not of the curvature, what the other says that is."""
        gradient = as_belief(self.gradient).facts(quantity, time)
        curvature = as_belief(self.curvature).facts(quantity, time)
        return (
            *(fact for fact in gradient if not fact.is_about("curvature")),
            *(fact for fact in curvature if not fact.is_about(quantity)),
        )

    def proper(self) -> bool:
        """As the belief about the gradient, whose density is taken."""
        return as_belief(self.gradient).proper()

    def program(self, stream: Stream) -> Any:
        """Refuse: each is held as if the other did not exist."""
        del stream
        raise ValueError(
            f"Cannot simulate or sample the latents of {self.name}. This is because its two "
            "beliefs are held as if the other did not exist, so that there is no joint program; "
            "use the one about the gradient."
        )


def independent(*, gradient: BeliefLike, curvature: BeliefLike) -> Independent:
    r"""Join a belief about the gradient and one about the curvature, on one stream.

    Each is held as if the other did not exist. There is no joint generative model of which this is
    the exact filter: a gradient with a drifting level (the one belief) does not have mean zero (the
    other). It is the approximation that Adam makes.

    Args:
        gradient: the belief whose gradient mean and variance are taken.
        curvature: the belief whose curvature mean and variance are taken.

    Returns:
        A belief.

    Raises:
        ValueError: at ``init``, the one says nothing of the gradient or the other nothing of the
            curvature.

    Example:
        Adam's belief, with Adam's memory:

        >>> from beliefnav import beliefs
        >>> adam = beliefs.independent(
        ...     gradient=beliefs.shared(beliefs.LocalLevel(0.9)),
        ...     curvature=beliefs.shared(beliefs.PrecisionWalk(0.999)),
        ... )
    """
    return Independent(gradient, curvature)
