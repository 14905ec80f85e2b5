"""Lives that are kept in files, setting by setting, so that a run that was cut off goes on."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import report
from experiments.kept import Kept
from experiments.plasticity import scoring, tuning
from experiments.plasticity.config import Config
from experiments.plasticity.methods import METHODS
from experiments.plasticity.network import NETWORKS
from experiments.plasticity.streams import STREAMS, Stream
from experiments.plasticity.training import Lives, Trainer
from experiments.tasks.task import code_of, find

RUNGS = ("tuning", "second", "final")
"""What seeds are for: no two of these have one in common."""
SECOND_SEEDS = 3


class Found(NamedTuple):
    """A method on a stream.

    Attributes:
        settings: those of the lives.
        lives: of the final seeds.
        tuned: how the settings were chosen; ``None`` if they were given.
    """

    settings: Mapping[str, float]
    lives: Lives
    tuned: tuning.Tuned | None = None


class Work:
    """What a run measures, or reads from earlier ones.

    Args:
        config: the options.

    Attributes:
        streams: name -> stream; one that nobody asked for and whose data are missing is left out,
            and said so.
        methods: name -> method.
        read: how many results were read from files.

    Raises:
        FileNotFoundError: the data of a stream that was asked for are missing.
    """

    def __init__(self, config: Config) -> None:
        """Load the data; compute nothing yet."""
        self.config, self.read = config, 0
        self.methods = {name: find("method", name, METHODS) for name in config.run_methods}
        self.streams: dict[str, Stream] = {}
        for name in config.streams or STREAMS:
            try:
                stream = find("stream", name, STREAMS)(config.data_dir)
            except FileNotFoundError as error:
                if config.streams is not None:
                    raise
                print(f"Left out: {name}. {error}")
                continue
            network = config.network or stream.network
            self.streams[name] = stream._replace(network=network).shortened(config.tasks)
        self._kept = Kept(config.folder / report.KEPT)
        self._trainers: dict[tuple[str, str], Trainer] = {}

    def belongs(self, stream: str, method: str) -> bool:
        """Whether a method is run on a stream; some need hidden units, which a network may hide."""
        of = self.streams[stream]
        network = find("network", of.network, NETWORKS)(of.shape, of.outputs)
        found = self.methods[method]
        return found.belongs(stream) and (network.look is not None or not found.units)

    def tuned(self, stream: str, method: str) -> Found:
        """A method at the settings that are best on the first quarter of a stream."""
        found, classifies = self.methods[method], self.streams[stream].classifies

        def loss(setting: Mapping[str, float], rung: int) -> np.ndarray:
            online = self._lives(stream, method, setting, RUNGS[rung]).online.mean(1)
            return -online if classifies else online

        tuned = None if self.config.quick else tuning.tune(found, loss)
        settings = found.quick or {} if tuned is None else tuned.settings
        return self.at(stream, method, settings)._replace(tuned=tuned)

    def at(self, stream: str, method: str, settings: Mapping[str, float]) -> Found:
        """A method at given settings."""
        return Found(settings, self._lives(stream, method, settings, "final"))

    def _lives(self, name: str, method: str, settings: Mapping[str, float], rung: str) -> Lives:
        config, stream = self.config, self.streams[name]
        position = RUNGS.index(rung)
        seeds = (config.tuning_seeds, SECOND_SEEDS, config.seeds)[position]
        tasks = len(stream.lengths)
        tasks = tasks if rung == "final" else max(1, tasks // 4)
        own = (name, method, stream.network)
        options = {
            "device": jax.devices()[0].device_kind,
            "data_dir": None if config.data_dir is None else str(config.data_dir),
            "seed": config.seed,
            "seeds": seeds,
            "stream": [
                x for x in stream._replace(lengths=stream.lengths[:tasks]) if not callable(x)
            ],
            "settings": dict(settings),
            "own code": [code_of(name) for name in own],
        }
        said = ", ".join(f"{k} {v:g}" for k, v in settings.items())
        path = "/".join(part.replace(":", ".") for part in (*own[:2], f"{rung} {said}"))
        found = self._kept.get(path, options)
        if found is None:
            key = jax.random.fold_in(jax.random.key(config.seed), position)
            lives = self._trainer(name, method).live(settings, jax.random.split(key, seeds), tasks)
            self._kept.put(path, options, lives._asdict())
            return lives
        self.read += 1
        return Lives(**found)

    def _trainer(self, name: str, method: str) -> Trainer:
        """The one that was compiled before, if it was."""
        if (name, method) not in self._trainers:
            stream = self.streams[name]
            network = find("network", stream.network, NETWORKS)(stream.shape, stream.outputs)
            self._trainers[name, method] = Trainer(stream, network, self.methods[method])
        return self._trainers[name, method]


def metrics(found: Found) -> dict[str, Any]:
    """What metrics.json says of a method on a stream."""
    lives, online = found.lives, found.lives.online
    said: dict[str, Any] = {
        "first": report.interval(scoring.first(online)),
        "last": report.interval(scoring.last(online)),
        "lifetime": report.interval(online.mean(1)),
        "end": report.interval(lives.end.mean(1)),
        "settings": found.settings,
        "online_by_task": online.mean(0),
        "microseconds_per_step": 1e6 * float(lives.seconds),
    }
    if lives.alarms.any() or lives.false_alarms.any():
        later = lives.alarms[:, 1:]
        said["alarms"] = {
            "switches_seen": float((later > 0).mean()) if later.size else None,
            "false_alarms": float(lives.false_alarms.sum(1).mean()),
        }
    if found.tuned is not None:
        said["edges"] = found.tuned.edges
        said["settings_tried"] = len(found.tuned.tried)
    return said
