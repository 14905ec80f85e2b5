"""The noisy quadratic again, by simulation: the library's optimizer against exact moments."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from beliefnav import rules
from experiments.certainty.quadratic import POWERS
from experiments.tasks import measuring
from experiments.tasks.measuring import Setup
from experiments.tasks.noisy_quadratic import noisy_quadratic
from experiments.tasks.rules import Rule

SCHEDULES = ("constant", "cosine", "linear")


class Arm(NamedTuple):
    """A schedule or average at its best rate.

    Attributes:
        exact: expected loss, by second moments.
        simulated: mean loss over paths.
        standard_error: of that mean.
        wrong: the exact loss of the last iterate at the same rates, which a simulation that did not
            average would find; of a schedule that of a constant rate.
    """

    exact: float
    simulated: float
    standard_error: float
    wrong: float

    @property
    def deviation(self) -> float:
        """Between simulated and exact loss, in standard errors."""
        return abs(self.simulated - self.exact) / self.standard_error

    @property
    def deviation_of_wrong(self) -> float:
        """Between simulated loss and that of the wrong computation, likewise."""
        return abs(self.simulated - self.wrong) / self.standard_error


def simulate(
    rates: np.ndarray, curves: Mapping[str, np.ndarray], paths: int, seed: int
) -> dict[str, Arm]:
    """Simulate all arms with `beliefnav.rules.sgd`, each at its best rate.

    Args:
        rates: that were tried [rate].
        curves: name of a schedule, or p -> exact loss at all rates.
        paths: number of simulated paths.
        seed: of the paths.

    Returns:
        Schedule, or "average, p = P" -> what it came to.
    """
    keys = jax.random.split(jax.random.key(seed), paths)
    rule, task = Rule(rules.sgd, ()), noisy_quadratic()
    best = {name: int(curve.argmin()) for name, curve in curves.items()}

    def arm(name: str, losses: np.ndarray) -> Arm:
        error, at = losses.std(ddof=1) / np.sqrt(paths), best[name]
        wrong = curves["constant"][at]
        return Arm(float(curves[name][at]), float(losses.mean()), float(error), float(wrong))

    found = {}
    for schedule in SCHEDULES:
        powers = POWERS if schedule == "constant" else ()
        names = [schedule, *map(str, powers)]  # each at its own rate, and read off its own path
        chosen = rates[[best[name] for name in names]]
        scores = measuring.train(task, Setup(rule, schedule, powers), chosen, keys, ("test",))
        for k, name in enumerate(names):
            label = name if name == schedule else f"average, p = {name}"
            found[label] = arm(name, scores["test error"][k, :, k])
    return found
