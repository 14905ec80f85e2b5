r"""No learning rate: a rule with nothing to choose, beside Adam with its rate tuned for each task.

Claim:
"""

from experiments import report
from experiments.kept import Kept
from experiments.no_rate import bench, drawing, stress
from experiments.no_rate.config import Config
from experiments.no_rate.results import Results, claims, metrics

__all__ = ["Config", "run"]


def run(config: Config) -> report.Report:
    """Train all arms on all tasks, then the rule where it may fail, and draw."""
    kept = Kept(config.folder / "kept")
    results = Results(bench.measure(config, kept), stress.measure(config, kept))
    drawing.draw(config.folder / "no_rate.png", results)
    drawing.draw_arms(config.folder / "arms.png", results)
    drawing.draw_stress(config.folder / "stress.png", results)
    return report.Report(claims(results, quick=config.quick), metrics(results))
