"""The options of the experiment."""

from dataclasses import dataclass

from experiments.options import OptionError, Options


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Weight resetting on a quadratic loss whose tasks switch.

    A quick run searches fewer settings, and has Laplace's approximation instead of NUTS.
    """

    QUICK = {
        "tracking_steps": 200_000,
        "sweep_steps": 20_000,
        "navigation_steps": 10_000,
        "streams": 4,
        "stream_steps": 60,
        "num_samples": 100,
    }
    LEAST = {
        "tracking_steps": 1000,
        "sweep_steps": 1000,
        "navigation_steps": 1000,
        "streams": 1,
        "stream_steps": 20,
        "num_samples": 20,
        "num_chains": 2,
    }

    hazard: float = 0.02
    """Probability of a switch per step, in tracking and navigation."""
    tracking_steps: int = 1_000_000
    """Steps of the stream on which beliefs are compared."""
    sweep_steps: int = 40_000
    """Steps of the stream on which wrong hazards are assumed, and the hazard is learned."""
    navigation_steps: int = 40_000
    """Steps over which the losses of weights that follow the beliefs are averaged."""
    streams: int = 20
    """Streams whose hyper-parameters are inferred."""
    stream_steps: int = 100
    """Steps of each of them."""
    num_samples: int = 250
    """Draws of a chain of NUTS."""
    num_chains: int = 2
    """Chains of NUTS for every stream."""

    def check(self) -> None:
        """Raise an `OptionError` on a hazard that is no probability."""
        if not 0 < self.hazard < 1:
            raise OptionError(f"hazard must be between 0 and 1, got {self.hazard}.")
