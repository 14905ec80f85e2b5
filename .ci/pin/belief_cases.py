"""Every belief with hyper-parameters for a demonstration, and every wrapper around some of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

from names import beliefs


class Case(NamedTuple):
    """A belief.

    Attributes:
        make: makes it.
        reading: what it gets from a second sensor: nothing, a ``"diagonal"`` or a ``"matrix"``.
    """

    make: Callable[[], Any]
    reading: str | None = None


def local_level(**changes: Any) -> Any:
    """A local level with a proper prior and a known noise."""
    known = {"noise_variance": 0.5, "prior_mean": 0.2, "prior_sample_size": 1.5}
    return beliefs.LocalLevel(0.8, **(known | changes))


def ornstein_uhlenbeck(noise_variance: Any = 0.5) -> Any:
    """An Ornstein-Uhlenbeck gradient."""
    return beliefs.OrnsteinUhlenbeck(0.8, 0.3, noise_variance)


def transient(**options: Any) -> Any:
    """A random walk with a transient."""
    return beliefs.Transient(0.9, 0.3, **options)


def precision_walk() -> Any:
    """A precision walk with a proper prior."""
    return beliefs.PrecisionWalk(0.9, 0.7, 3.0)


def secant(**changes: Any) -> Any:
    """A secant landscape in which all variances are positive."""
    values = {
        "noise_variance": 0.3,
        "prior_gradient_variance": 2.0,
        "prior_curvature_variance": 1.5,
        "prior_gradient_mean": 0.1,
        "prior_curvature_mean": 0.6,
        "gradient_process_variance": 0.05,
        "curvature_process_variance": 0.1,
        "gradient_autocorrelation": 0.95,
        "curvature_autocorrelation": 0.9,
    }
    return beliefs.Secant(**(values | changes))


def still_secant() -> Any:
    """A secant landscape of constant curvature, all other numbers at their defaults."""
    return beliefs.Secant(0.3, 2.0, 1.5)


def optimum(**changes: Any) -> Any:
    """A drifting optimum."""
    values = {"prior_mean": 0.2, "process_variance": 0.05, "autocorrelation": 0.9}
    return beliefs.Optimum(1.7, 0.4, 0.8, **(values | changes))


def fisher_optimum(prior_variance: Any = 0.8) -> Any:
    """An optimum that may be drawn anew, whose curvature is read."""
    return beliefs.FisherOptimum(0.05, 4, prior_variance)


def switching(hazard: Any = 0.1) -> Any:
    """An optimum that switches between tasks."""
    return beliefs.SwitchingOptimum(1.7, 0.4, 0.8, hazard, 0.2)


def grid() -> Any:
    """A prior over the hazard."""
    return beliefs.HazardGrid.beta(1.0, 9.0, 5)


def unknown(model: Any, **changes: Any) -> Any:
    """A model whose noise is unknown."""
    prior = {"prior_noise_scale": 0.6, "prior_degrees_of_freedom": 3.0}
    return beliefs.UnknownNoise(model, **(prior | changes))


def both() -> Any:
    """A secant landscape with a second sensor."""
    return secant(curvature_noise_variance=0.4)


CASES: dict[str, Case] = {
    "LocalLevel": Case(local_level),
    "LocalLevel, diffuse": Case(lambda: beliefs.LocalLevel(0.8)),
    "LocalLevel, diffuse, known noise": Case(lambda: beliefs.LocalLevel(0.8, 0.5)),
    "OrnsteinUhlenbeck": Case(ornstein_uhlenbeck),
    "OrnsteinUhlenbeck, no noise": Case(lambda: beliefs.OrnsteinUhlenbeck(0.0, 1.0, 0.0)),
    "Transient": Case(transient),
    "Transient, known variance": Case(lambda: transient(innovation_variance=0.7)),
    "Transient, diffuse": Case(lambda: transient(innovation_variance=0.7, diffuse=True)),
    "Wiener": Case(lambda: beliefs.Wiener(0.9, 0.95)),
    "RetractedLevel": Case(lambda: beliefs.RetractedLevel(0.7, 1.0, 0.1)),
    "PrecisionWalk": Case(precision_walk),
    "PrecisionWalk, improper": Case(lambda: beliefs.PrecisionWalk(0.9)),
    "UniformWalk": Case(lambda: beliefs.UniformWalk(0.9, 1e-3)),
    "WishartWalk": Case(lambda: beliefs.WishartWalk(0.9)),
    "WishartWalk, prior": Case(lambda: beliefs.WishartWalk(0.9, 0.5, 2.0)),
    "KroneckerWalk": Case(lambda: beliefs.KroneckerWalk(0.9, 0.1, 0.4)),
    "Secant": Case(secant),
    "Secant, constant curvature": Case(still_secant),
    "Secant, second sensor": Case(both, "diagonal"),
    "Secant, second sensor silent": Case(both),
    "Optimum": Case(optimum),
    "Optimum, constant": Case(lambda: beliefs.Optimum(1.7, 0.4, 0.8)),
    "FisherOptimum": Case(fisher_optimum),
    "FisherOptimum, read": Case(fisher_optimum, "diagonal"),
    "FisherOptimum, spread of the start": Case(lambda: fisher_optimum(None), "diagonal"),
    "RunLengths": Case(lambda: beliefs.RunLengths(switching(), 4)),
    "RunLengths, hazard learned": Case(lambda: beliefs.RunLengths(switching(grid()), 4)),
    "TwoHypotheses": Case(lambda: beliefs.TwoHypotheses(switching())),
    "TwoHypotheses, hazard learned": Case(lambda: beliefs.TwoHypotheses(switching(grid()))),
    "RunLengthReset": Case(lambda: beliefs.RunLengthReset(switching())),
    "RunLengthReset, hazard learned": Case(lambda: beliefs.RunLengthReset(switching(grid()))),
    "SwitchingOptimum.linear": Case(lambda: switching().linear()),
    "independent(LocalLevel, PrecisionWalk)": Case(
        lambda: beliefs.independent(gradient=local_level(), curvature=precision_walk())
    ),
    "independent(Secant, sensed(LocalLevel))": Case(
        lambda: beliefs.independent(gradient=secant(), curvature=beliefs.sensed(local_level())),
    ),
    "independent(shared(LocalLevel), shared(PrecisionWalk))": Case(
        lambda: beliefs.independent(
            gradient=beliefs.shared(local_level()), curvature=beliefs.shared(precision_walk())
        )
    ),
    "independent(look_ahead(LocalLevel), sensed(RetractedLevel))": Case(
        lambda: beliefs.independent(
            gradient=beliefs.look_ahead(local_level()),
            curvature=beliefs.sensed(beliefs.RetractedLevel(0.7, 1.0, 0.1)),
        ),
        "diagonal",
    ),
    "sensed(LocalLevel)": Case(lambda: beliefs.sensed(local_level()), "diagonal"),
    "sensed(shared(LocalLevel))": Case(
        lambda: beliefs.sensed(beliefs.shared(local_level())), "diagonal"
    ),
    "sensed(RetractedLevel)": Case(
        lambda: beliefs.sensed(beliefs.RetractedLevel(0.7, 1.0, 0.1)), "diagonal"
    ),
    "sensed(LocalLevel), dense": Case(lambda: beliefs.sensed(local_level(), dense=True), "matrix"),
    "sensed(shared(LocalLevel)), dense": Case(
        lambda: beliefs.sensed(beliefs.shared(local_level()), dense=True), "matrix"
    ),
    "shared(LocalLevel)": Case(lambda: beliefs.shared(local_level())),
    "shared(OrnsteinUhlenbeck)": Case(lambda: beliefs.shared(ornstein_uhlenbeck())),
    "shared(PrecisionWalk)": Case(lambda: beliefs.shared(precision_walk())),
    "shared(UnknownNoise(OrnsteinUhlenbeck))": Case(
        lambda: beliefs.shared(unknown(ornstein_uhlenbeck(1.0)))
    ),
    "shared(UnknownNoise(Secant))": Case(lambda: beliefs.shared(unknown(both())), "diagonal"),
    "shared(accumulated(PrecisionWalk))": Case(
        lambda: beliefs.shared(beliefs.accumulated(precision_walk()))
    ),
    "shared(look_ahead(LocalLevel))": Case(
        lambda: beliefs.shared(beliefs.look_ahead(local_level()))
    ),
    "UnknownNoise(OrnsteinUhlenbeck)": Case(lambda: unknown(ornstein_uhlenbeck(1.0))),
    "UnknownNoise(OrnsteinUhlenbeck), improper": Case(
        lambda: beliefs.UnknownNoise(ornstein_uhlenbeck(1.0))
    ),
    "UnknownNoise(LocalLevel)": Case(lambda: unknown(local_level())),
    "UnknownNoise(LocalLevel, diffuse)": Case(lambda: unknown(beliefs.LocalLevel(0.8, 1.0))),
    "UnknownNoise(Secant)": Case(lambda: unknown(secant())),
    "UnknownNoise(Secant, second sensor)": Case(lambda: unknown(both()), "diagonal"),
    "UnknownNoise(Secant), drifting": Case(lambda: unknown(secant(), discount=0.9)),
    "UnknownNoise(Optimum)": Case(lambda: unknown(optimum())),
    "positive(Secant)": Case(lambda: beliefs.positive(secant())),
    "positive(PrecisionWalk)": Case(lambda: beliefs.positive(precision_walk())),
    "positive(UnknownNoise(Secant))": Case(lambda: beliefs.positive(unknown(secant()))),
    "positive(UnknownNoise(Secant, second sensor))": Case(
        lambda: beliefs.positive(unknown(both())), "diagonal"
    ),
    "look_ahead(LocalLevel)": Case(lambda: beliefs.look_ahead(local_level())),
    "look_ahead(LocalLevel, diffuse)": Case(lambda: beliefs.look_ahead(beliefs.LocalLevel(0.8))),
    "accumulated(PrecisionWalk)": Case(lambda: beliefs.accumulated(precision_walk())),
}
