r"""No learning rate: a rule with nothing to choose, beside Adam with its rate tuned for each task.

Claim:
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
