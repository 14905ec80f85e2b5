"""The options of the experiment."""

from dataclasses import dataclass
from pathlib import Path

from experiments.command_line import check_at_least


@dataclass(frozen=True)
class Config:
    """Weight resetting on a quadratic loss whose tasks switch."""

    hazard: float = 0.02
    """Probability of a switch per step, in tracking and navigation."""
    tracking_steps: int = 1_000_000
    """Steps of the stream on which beliefs are compared."""
    streams: int = 20
    """Streams whose hyper-parameters are inferred."""
    stream_steps: int = 100
    """Steps of each of them."""
    num_samples: int = 250
    """Draws of a chain of NUTS."""
    num_chains: int = 2
    """Chains of NUTS for every stream."""
    seed: int = 0
    """The random seed of all of it."""
    out: Path = Path("runs/task_switch")
    """Folder to write to."""
    quick: bool = False
    """Fewer settings and streams, Laplace's approximation instead of NUTS."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: names the one that is out of range.
        """
        if not 0 < self.hazard < 1:
            raise ValueError(f"hazard must be between 0 and 1, got {self.hazard}.")
        check_at_least(
            self, tracking_steps=1000, streams=1, stream_steps=20, num_samples=20, num_chains=2
        )
