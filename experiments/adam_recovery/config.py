"""The options of the experiment."""

from dataclasses import dataclass
from pathlib import Path

from beliefnav import inference
from experiments.command_line import check_at_least


@dataclass(frozen=True)
class Config:
    """Recover the root of Adam from beliefs about simulated landscapes, and look beyond it."""

    num_params: int = 2000
    """Coordinates of a simulated stream."""
    num_steps: int = 2000
    """Steps of a simulated stream."""
    sampled_params: int = 12
    """Coordinates of each of four groups that NUTS is run on."""
    sampled_steps: int = 200
    """Steps of their streams."""
    num_warmup: int = 300
    """Adaptation steps of a chain of NUTS; there are four chains for every coordinate."""
    num_samples: int = 600
    """Draws of a chain."""
    problems: int = 20_000
    """Quadratics on which plans on means are compared with means of plans."""
    network_steps: int = 600
    """Steps on the digits."""
    seeds: int = 3
    """Networks that are trained with every rule."""
    grid: int = 241
    """Positions, and beliefs, of the grid on which the dual control problem is solved."""
    seed: int = 0
    """The random seed of all of it."""
    out: Path = Path("runs/adam_recovery")
    """Folder to write to."""
    quick: bool = False
    """Fewer of everything; the tolerances of the claims stay."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: names the first that is too small to say anything.
        """
        check_at_least(
            self,
            num_params=100,
            num_steps=500,
            sampled_params=4,
            sampled_steps=2 * inference.MIN_STEPS,
            num_warmup=50,
            num_samples=50,
            problems=1000,
            network_steps=1,
            seeds=1,
            grid=121,
        )

    def at_most(self, field: str, quick: int) -> int:
        """An option, or less of it in a quick run."""
        value = getattr(self, field)
        return min(value, quick) if self.quick else value
