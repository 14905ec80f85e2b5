"""Recordings: made by training a network, or read, and made ready to be asked."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
import optax
from jax import Array
from tqdm import tqdm

from beliefnav import inference, recording
from beliefnav._files import written_beside
from experiments.gradient_noise.config import MIN_COORDINATES, STAGES, Config
from experiments.options import OptionError
from experiments.training import Problem, train
from models import gradient_noise

if TYPE_CHECKING:
    import xarray as xr

RATE = 1e-3
"""The learning rate of the training that is recorded."""
HELD_OUT = 0.2
"""The last part of each stage, predicted and not fitted."""
MISSING = 0.1
"""Coordinates with more missing entries than this are left out."""
SILENT = f"constant, or missing or zero at more than {MISSING:.0%} of the steps of a stage"
FEW = f"fewer than {MIN_COORDINATES} of the layer say something"
MORE = "more than --coordinates"


class Stream(NamedTuple):
    """A recording that is ready to be asked.

    Attributes:
        name: of the data set or the file.
        values: standardised, of dimensions (step, param, stage).
        layers: of the coordinates.
        left_out: layer -> why -> the labels of those of its coordinates that were not used.
    """

    name: str
    values: "xr.Dataset"
    layers: gradient_noise.Layers
    left_out: dict[str, dict[str, list[str]]]

    @property
    def fitted(self) -> "xr.Dataset":
        """The part of every stage that is fitted."""
        return self.values.isel(step=fitted_steps(self.values.sizes["step"]))

    @property
    def held_out(self) -> slice:
        """The steps of a stage that are predicted and not fitted."""
        return slice(fitted_steps(self.values.sizes["step"]).stop, None)

    @property
    def num_held_out(self) -> int:
        """The number of gradients that are predicted and not fitted."""
        return int(np.isfinite(self.values["gradient"].isel(step=self.held_out)).sum())


def fitted_steps(num_steps: int) -> slice:
    """The steps of a stage that are fitted."""
    return slice(0, round(num_steps * (1 - HELD_OUT)))


def record(config: Config, problems: dict[str, Problem]) -> list[Stream]:
    """Train with Adam, recording weights of every layer."""
    streams = []
    for name, problem in problems.items():
        # As many again, for those that are nearly always zero.
        recorded = train_and_record(config, name, problem, 2 * config.coordinates)
        path = config.folder / f"stream_{name}.nc"
        with written_beside(path) as unfinished:
            recorded[["gradient", "displacement", "params"]].to_netcdf(
                unfinished, engine="h5netcdf"
            )
        streams.append(prepare(config, name, recorded, len(STAGES)))
    return streams


def train_and_record(config: Config, name: str, problem: Problem, coordinates: int) -> "xr.Dataset":
    """Train a network and return what was recorded of its weight matrices."""
    num_steps = (2 * len(STAGES) - 1) * config.stage_steps
    keys = jax.random.split(jax.random.key(config.seed), 3)
    optimizer = recording.record(
        optax.adam(RATE), coordinates=coordinates, capacity=num_steps, key=keys[1]
    )

    @jax.jit
    def start(key: Array) -> tuple[Any, Any]:
        params = problem.make(key)
        return params, optimizer.init(params)

    @jax.jit
    def advance(carry: Any, keys: Array) -> Any:
        batches = problem.batches(keys, config.batch_size)
        return train(problem.loss, optimizer, carry, batches)[0]

    carry = start(keys[0])
    parts = jax.random.split(keys[2], (2 * len(STAGES) - 1, config.stage_steps))
    for part in tqdm(parts, desc=f"Adam on {name}"):
        carry = advance(carry, part)
    recorded = recording.to_dataset(carry[1], carry[0])
    weights = ["weight" in str(label) for label in recorded["param"].values]
    return recorded.isel(param=weights)


def read(config: Config, path: Path) -> list[Stream]:
    """A stream file of the user's."""
    try:
        recorded = recording.read_stream(path)
        num_steps = recorded.sizes["step"]
        num_stages = min(len(STAGES), max(1, num_steps // (2 * inference.MIN_STEPS)))
        return [prepare(config, path.stem, recorded, num_stages)]
    except (ValueError, OptionError) as error:
        said = str(error)
        raise OptionError(said if str(path) in said else f"{path}: {said}") from error


def prepare(config: Config, name: str, recorded: "xr.Dataset", num_stages: int) -> Stream:
    """Take stages and coordinates out of a recording, and standardise them.

    Raises:
        OptionError: there are too few steps, or no layer has enough coordinates that say anything.
    """
    import xarray as xr

    total = recorded.sizes["step"]
    if total < inference.MIN_STEPS:
        raise OptionError(f"{total} steps are too few; at least {inference.MIN_STEPS} are needed.")
    length = min(config.stage_steps, total // num_stages)
    starts = np.linspace(0, total - length, num_stages).astype(int)
    names = [n for n in ("gradient", "displacement") if n in recorded]
    parts = [
        recorded[names].isel(step=slice(s, s + length)).assign_coords(step=np.arange(length))
        for s in starts
    ]
    stage_names = STAGES if num_stages == len(STAGES) else tuple(map(str, range(num_stages)))
    values = xr.concat(parts, xr.IndexVariable("stage", list(stage_names)))
    gradient = values["gradient"]
    if not np.isfinite(gradient).any():
        raise OptionError("no gradient is finite.")
    if not inference.informative(recorded).any():
        raise OptionError("every coordinate is constant.")
    values["gradient"] = gradient.where(np.isfinite(gradient) & (gradient != 0))
    fitted = values.isel(step=fitted_steps(length))
    seen = fitted["gradient"].notnull().mean("step") >= 1 - MISSING
    good = (seen & inference.informative(fitted)).all("stage").values
    layers = gradient_noise.Layers.of(recorded["param"].values)
    chosen: list[int] = []
    left_out: dict[str, dict[str, list[str]]] = {}
    for i, layer in enumerate(layers.names):
        live = np.flatnonzero((layers.position == i) & good)
        enough = len(live) >= MIN_COORDINATES
        taken = live[: config.coordinates] if enough else live[:0]
        chosen += taken.tolist()
        why = {
            SILENT: np.flatnonzero((layers.position == i) & ~good),
            MORE if enough else FEW: live[len(taken) :],
        }
        left_out[layer] = {
            reason: [str(label) for label in recorded["param"].values[places]]
            for reason, places in why.items()
            if len(places)
        }
    for layer, reasons in left_out.items():
        for reason, labels in reasons.items():
            first = ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")
            print(f"{name}: {layer}: left out {len(labels)} coordinates ({reason}): {first}")
    if not chosen:
        raise OptionError(
            f"no layer has {MIN_COORDINATES} coordinates whose gradient varies in every stage and "
            f"is missing or zero in at most {MISSING:.0%} of the steps; of {len(good)} coordinates "
            f"{int(good.sum())} do."
        )
    values = gradient_noise.standardised(values.isel(param=chosen), fitted_steps(length))
    kept = gradient_noise.Layers.of(values["param"].values)
    values = values.assign_coords(layer=("layer", list(kept.names)))
    return Stream(name, values.transpose("step", "param", "stage", ...), kept, left_out)
