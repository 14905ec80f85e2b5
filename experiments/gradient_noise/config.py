"""The options of the experiment."""

from dataclasses import dataclass, fields
from pathlib import Path

from beliefnav import inference
from experiments.data import DATA_SETS
from experiments.options import OptionError, Options, check_known

STAGES = ("early", "middle", "late")
MIN_COORDINATES = 4
"""Layers with fewer coordinates are left out."""


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Which memory recorded gradients ask for, in Adam's units.

    A quick run has Laplace's approximation instead of NUTS.
    """

    QUICK = {
        "data": ("digits",),
        "secant": False,
        "stage_steps": 200,
        "coordinates": 6,
        "seeds": 1,
    }
    NOT_QUICK = ("num_samples",)
    OF_TRAINING = ("data", "batch_size", "seeds", "data_dir")
    """Options of the training that is recorded, which a recording of one's own has no use for."""
    LEAST = {
        "stage_steps": 2 * inference.MIN_STEPS,
        "coordinates": MIN_COORDINATES,
        "batch_size": 1,
        "num_samples": 20,
        "num_chains": 1,
        "seeds": 1,
    }

    data: tuple[str, ...] = ("digits", "fashion_mnist")
    """Data sets to train on: digits, mnist1d, fashion_mnist."""
    stream: Path | None = None
    """A stream file to ask instead."""
    secant: bool = True
    """Whether the secant model is fitted too: no claim is about it, and it takes the longest."""
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
    data_dir: Path | None = None
    """Folder of the fashion_mnist files, if they are not where Debian's package puts them."""

    def check(self) -> None:
        """Raise an `OptionError` on an unknown data set, and on what a recording has no use for."""
        check_known("data set", self.data, DATA_SETS)
        for field in fields(self):
            unused = self.stream is not None and field.name in self.OF_TRAINING
            value, defaults = getattr(self, field.name), (field.default, self.QUICK.get(field.name))
            if unused and value not in defaults:
                raise OptionError(
                    f"{field.name} has no part where a recording is asked, got {value}; leave it "
                    "out, or leave --stream out."
                )
