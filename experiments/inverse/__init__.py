r"""What a learner assumes, inferred from its recording; and a drift that is learned.

The theory's stated limitation is that its assumptions are put in by hand. Here they are inferred:
from gradients, displacements and parameters of a learner, the numbers and options of the family of
which Adam, momentum and the others are members, with intervals, and with a verdict on whether it
is a member at all.

Claims: for optax's rules on a network in float32 every number that is told is right within 1 %,
every rule is named, and what is left unexplained is the rounding of the parameters; under noise of
execution the posterior holds the truth as often as it says; a learner outside of the family is
called so, and the coordinate or the time where it departs is named. They would be refuted by a
number that is told and wrong, a misnamed rule, intervals too narrow or too wide, and places named
where there are none. Every claim has its control: learners outside of the family, intervals of half
the width, and a classifier by summary statistics, which is trained on other runs.

``--stream FILE`` asks of a recording of your own instead.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import optax
from tqdm import tqdm

from experiments import report
from experiments.inverse import asking, baseline, coverage, perturbed
from experiments.inverse.catalogue import KINDS, Learner, learners, network, record
from experiments.inverse.config import Config
from experiments.kept import Kept

if TYPE_CHECKING:
    from experiments.inverse.results import Results

__all__ = ["Config", "run"]

FLIPPED = "layers/3/weight[0,0]"
"""A weight that is always recorded, whose learner moves it the wrong way."""


def run(config: Config) -> report.Report:
    """Record, infer, compare, perturb, draw; or ask of one's own recording."""
    if config.stream is not None:
        said = asking.ask_file(config.stream)
        print(said["table"])
        return report.Report([], {"inferred": asking.written(said)})
    from experiments.inverse import decaying, rotation  # on which nothing else depends

    turning, decay = rotation.Setting(), decaying.Setting()
    if config.quick:
        turning, decay = rotation.QUICK, decaying.QUICK
    with ThreadPoolExecutor() as beside:  # of a quick run most is compilation, which takes one core
        turns = beside.submit(rotation.measured, turning, config.seed)
        decays = beside.submit(decaying.measured, decay, config.seed)
        found = infer(config)
        turned, decayed = turns.result(), decays.result()
    from experiments.inverse import drawing, results

    drawing.draw(config.folder, found)
    rotation.draw(config.folder / "rotation.png", turned)
    decaying.draw(config.folder / "decay.png", decayed)
    claims = [*results.claims(found), *rotation.claims(turned), *decaying.claims(decayed)]
    drifted = {
        "equilibrium": turned["equilibrium"],
        "rotation": {name: turned[name] for name in ("cost", "matrix")},
        "decay": {name: decayed[name] for name in ("accuracy", "layers", "without_drift")},
    }
    return report.Report(claims, results.metrics(found) | drifted)


def infer(config: Config) -> "Results":
    """All parts but those of a drift."""
    every = learners(config.steps)
    chosen = {name: every[name] for name in config.learners}
    kept = Kept(config.folder / "kept")
    builds = {name: learner.build for name, learner in chosen.items()}
    said = ask_all(config, kept, departing(config) | builds)
    classified = compare(config, kept, chosen)
    noises, seed = config.noises, config.seed
    options = {"noises": noises, "fits": config.fits, "seed": seed}
    covered = {
        name: kept.measure(
            f"coverage/{name}",
            options | {"rule": name},
            partial(coverage.measure, name, noises, config.fits, seed),
        )
        for name in tqdm(config.rules, desc="coverage")
    }
    ends = {}
    if "adamw" in config.rules:
        ends = kept.measure("ends", options, lambda: coverage.ends(noises, config.fits // 10, seed))
    from experiments.inverse.results import Results  # on which nothing above depends

    return Results(
        chosen,
        said,
        classified,
        noisy={name: {s: said[noisy_name(name, s)] for s in noises} for name in config.noisy},
        coverage=covered,
        ends=ends,
        fits=config.fits,
        flipped=FLIPPED,
        steps=config.steps,
    )


def noisy_name(name: str, noise: float) -> str:
    """What a learner with noise of execution is called."""
    return f"{name}, noise {noise:g}"


def departing(config: Config) -> dict[str, Callable[[], optax.GradientTransformation]]:
    """Adam, which is of the family, and learners that are not quite of it."""
    adam = partial(KINDS["adam"].build, **KINDS["adam"].numbers)
    found: dict[str, Any] = {
        "adam": adam,
        "one sign flipped": lambda: optax.chain(adam(), perturbed.flipped(FLIPPED)),
        "memory that switches": lambda: perturbed.switching(config.steps),
    }
    key = jax.random.key(config.seed + 1)
    for name in config.noisy:
        for noise in config.noises:
            found[noisy_name(name, noise)] = lambda kind=KINDS[name], noise=noise: optax.chain(
                kind.build(**kind.numbers), perturbed.noise_of_execution(noise, key)
            )
    return found


def ask_all(
    config: Config, kept: Kept, builds: dict[str, Callable[[], optax.GradientTransformation]]
) -> dict[str, asking.Said]:
    """Record every learner on the same batches, and infer what it assumes."""
    problem, key = network(), jax.random.key(config.seed)
    options = {name: getattr(config, name) for name in ("steps", "coordinates", "seed")}

    def ask(name: str) -> dict[str, Any]:
        stream = record(problem, builds[name](), config.steps, config.coordinates, key)
        return asking.ask(stream)

    return {
        name: kept.measure(f"said/{name}", options | {"name": name}, partial(ask, name))
        for name in tqdm(builds, desc="inferred")
    }


def compare(config: Config, kept: Kept, chosen: dict[str, Learner]) -> baseline.Classified:
    """What a classifier says of the same learners."""
    options = {"steps": config.steps, "runs": config.runs, "seed": config.seed}
    names = {learner.kind for learner in chosen.values()} if config.quick else set(KINDS)
    kinds = {name: kind for name, kind in KINDS.items() if name in names}
    measured = kept.measure(
        "baseline",
        options | {"kinds": list(kinds), "learners": list(chosen)},
        lambda: baseline.measure(network(), kinds, chosen, config.steps, config.runs, config.seed),
    )
    return baseline.classify(measured, chosen, config.seed)
