"""The options of the experiment."""

from dataclasses import dataclass
from pathlib import Path

from beliefnav import inference
from experiments import data as data_sets
from experiments.command_line import check_at_least

STAGES = ("early", "middle", "late")
MIN_COORDINATES = 4
"""Layers with fewer coordinates are left out."""


@dataclass(frozen=True)
class Config:
    """Which memory recorded gradients ask for, in Adam's units."""

    data: str = "digits,fashion_mnist"
    """Data sets to train on, separated by commas: digits, mnist1d, fashion_mnist."""
    stream: Path | None = None
    """A stream file to ask instead."""
    stage_steps: int = 1000
    """Steps of a stage; there are three, with as many steps between two of them."""
    coordinates: int = 20
    """Coordinates of a layer."""
    batch_size: int = 64
    """Examples of a gradient, drawn with replacement."""
    num_samples: int = 1000
    """Draws of a chain."""
    num_chains: int = 2
    """Chains of NUTS."""
    seeds: int = 3
    """Networks that are trained again for every setting."""
    seed: int = 0
    """The random seed of all of it."""
    out: Path = Path("runs/gradient_noise")
    """Folder to write to."""
    data_dir: Path | None = None
    """Folder of the fashion_mnist files, if they are not where Debian's package puts them."""
    quick: bool = False
    """Digits alone, short stages, few coordinates, Laplace's approximation instead of NUTS."""

    def __post_init__(self) -> None:
        """Check the names and numbers.

        Raises:
            ValueError: says what is wrong, and which names there are.
        """
        for name in self.data.split(","):
            data_sets.check_name(name)
        check_at_least(
            self,
            stage_steps=2 * inference.MIN_STEPS,
            coordinates=MIN_COORDINATES,
            batch_size=1,
            num_samples=20,
            num_chains=1,
            seeds=1,
        )

    @property
    def names(self) -> list[str]:
        """The data sets of this run."""
        return ["digits"] if self.quick else self.data.split(",")

    @property
    def steps(self) -> int:
        """Steps of a stage of this run."""
        return min(self.stage_steps, 200) if self.quick else self.stage_steps

    @property
    def per_layer(self) -> int:
        """Coordinates of a layer of this run."""
        return min(self.coordinates, 6) if self.quick else self.coordinates
