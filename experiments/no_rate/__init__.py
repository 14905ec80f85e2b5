"""No learning rate: a rule with nothing to choose, beside Adam with its rate tuned for each task.

Claim: with the same numbers on all tasks, those that were held out among them, the rule has no more
than 1.1 times the test error of Adam at 1e-3 on any, at most 0.95 times in the median, and in the
median at most 1.05 times that of Adam whose rate is tuned for the task. It would be refuted by
larger ratios, and by a last iterate that is better than the average in the median.

`bench` has all arms, `stress` what the rule may fail at. What was expected of both was written down
before, in ``predictions.md``, whose digest ``metrics.json`` holds beside what came out: what did
not hold is said there, and is no claim. Other rules without a rate and two controls from the
literature run on the same seeds.
"""

from experiments import report
from experiments.kept import Kept
from experiments.no_rate import bench, stress
from experiments.no_rate.config import Config

__all__ = ["Config", "run"]


def run(config: Config) -> report.Report:
    """Train all arms on all tasks, then the rule where it may fail, and draw."""
    kept = Kept(config.folder / "kept")
    benched, stressed = bench.measure(config, kept), stress.measure(config, kept)
    from experiments.no_rate import drawing, results  # nothing above depends on them

    found = results.Results(benched, stressed)
    drawing.draw(config.folder / "no_rate.png", found)
    drawing.draw_arms(config.folder / "arms.png", found)
    drawing.draw_stress(config.folder / "stress.png", found)
    return report.Report(results.claims(found, quick=config.quick), results.metrics(found))
