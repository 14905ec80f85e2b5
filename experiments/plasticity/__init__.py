"""Weights are reset in networks, without task boundaries, beside the methods of the field.

Streams of tasks: digits with fresh random labels, with permuted labels, with permuted pixels
(clothes too, where Fashion-MNIST is there), a regression whose inputs change slowly, signals of
mnist1d with permuted labels, and one task that stays. Every method chooses among six settings by
its mean online score over all tasks of a stream (two seeds), and is then run on other seeds.
Methods of kind "told" know when tasks begin, or how long they are.

Claimed, on random labels: Adam loses its plasticity (online accuracy above 0.55 in the first tenth
of 40 tasks, below 0.25 in the last); `beliefnav.rules.hazard_filter`, told nothing, keeps it, and
ends no worse than 0.03 below an oracle that begins anew with every task, whose own curve is flat:
tasks are equally hard; and neither forgetting without the pull to the initial parameters, nor the
pull without forgetting, nor a pull to zero, nor a hazard of 0 does. On one ordinary task it costs
at most a point of accuracy. Refuted if a claim in ``metrics.json`` fails.

Methods are run one by one and kept (`experiments.kept`): a run that was cut off goes on where it
was.
"""

from typing import Any

import jax
from tqdm import tqdm

from experiments import report
from experiments.kept import Kept
from experiments.plasticity import drawing, predicting, results
from experiments.plasticity.claims import claims, stationary_gaps
from experiments.plasticity.config import Config
from experiments.plasticity.methods import METHODS
from experiments.plasticity.results import Result
from experiments.plasticity.streams import STREAMS, Stream


def run(config: Config) -> report.Report:
    """Run all methods on all streams, check the claims, draw."""
    streams, kept = prepare(config), Kept(config.folder / report.KEPT)
    plan = {
        name: [method for method in config.run_methods if METHODS[method].belongs(name)]
        for name in streams
    }
    found: dict[str, dict[str, Result]] = {name: {} for name in streams}
    with tqdm(total=sum(map(len, plan.values())), unit="method") as bar:
        for name, methods in plan.items():
            for method in methods:
                bar.set_description(f"{name}, {method}")
                of = found[name]
                of[method] = results.measure(kept, config, name, streams[name], method, of)
                bar.update()
    said = {
        stream: {method: results.metrics(result) for method, result in of_stream.items()}
        for stream, of_stream in found.items()
    }
    extra: dict[str, Any] = {"read_from_files": kept.read}
    if {"adam", "hazard_filter"} <= set(found.get("stationary", {})):
        extra["stationary_gaps"] = stationary_gaps(found["stationary"])
        extra["predictions"] = predicting.predictions(
            streams["stationary"],
            found["stationary"],
            config.other_seeds,
            jax.random.key(config.seed + 1),
        )
    drawing.draw(found, config.folder)
    return report.Report(claims(found, quick=config.quick), {"streams": said, **extra})


def prepare(config: Config) -> dict[str, Stream]:
    """The streams of a run.

    One that nobody asked for and whose data are missing is left out, and said so.

    Raises:
        FileNotFoundError: the data of one that was asked for are missing.
    """
    streams = {}
    for name in config.streams or STREAMS:
        try:
            stream = STREAMS[name](config.data_dir)
        except FileNotFoundError as error:
            if config.streams is not None:
                raise
            print(f"Left out: {name}. {error}")
            continue
        streams[name] = stream._replace(tasks=config.tasks or stream.tasks)
    return streams
