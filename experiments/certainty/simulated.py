"""The noisy quadratic again, by simulation: the library's optimizer against exact moments."""

from typing import NamedTuple

import jax
import numpy as np

from beliefnav import rules
from experiments.certainty import quadratic
from experiments.certainty.quadratic import POWERS
from experiments.tasks import measuring
from experiments.tasks.measuring import Setup
from experiments.tasks.noisy_quadratic import STEPS, noisy_quadratic
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


def simulate(paths: int, seed: int) -> dict[str, Arm]:
    """Simulate all arms with `beliefnav.rules.sgd` and compare."""
    problem, shapes = quadratic.standard(), quadratic.schedules(STEPS)
    swept = quadratic.sweep(problem, np.stack([shapes[name] for name in SCHEDULES]))
    constant = swept.last[0]
    keys = jax.random.split(jax.random.key(seed), paths)
    rule, task = Rule(rules.sgd, ()), noisy_quadratic()

    def arm(exact: float, losses: np.ndarray, at: int) -> Arm:
        error = losses.std(ddof=1) / np.sqrt(paths)
        return Arm(float(exact), float(losses.mean()), float(error), float(constant[at]))

    found = {}
    for i, name in enumerate(SCHEDULES):
        best = [int(swept.last[i].argmin())]
        best += [int(x) for x in swept.average[0].argmin(0)] if name == "constant" else []
        setup = Setup(rule, name, POWERS if name == "constant" else ())
        scores = measuring.train(task, setup, swept.rates[best], keys, ("test",))["test error"]
        found[name] = arm(swept.last[i, best[0]], scores[0, :, 0], best[0])
        for k, at in enumerate(best[1:]):
            exact = swept.average[0, at, k]
            found[f"average, p = {POWERS[k]}"] = arm(exact, scores[k + 1, :, k + 1], at)
    return found
