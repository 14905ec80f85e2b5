r"""Which beliefs of learning rules predict recorded gradients, and whether those train better.

Networks are trained with Adam, and gradients of a few coordinates are recorded in three stages,
with displacements and with what a step did to the gradient of its own batch. The belief of every
rule is filtered over the same readings and scored where it says something: its mean (`scores`,
location), its curvature as a mean square (scale), and its curvature as curvature. One recipe of
nuisances serves all rules. Where a rule says nothing of a part, the result says so.

Inside Adam, at 25 pairs of memories with the rate chosen anew for each, the rank correlation
between how well the belief predicts and how well the network trains is reported with its interval
over seeds, whatever it is: the normative reading of the rule expects it to be positive.

Claims: on simulated readings the scores of location and curvature give the right belief as many
nats as variances say, to within 0.014 and 0.006 nats, and that of scale gives it more than 0. They
would be refuted by a recipe that rewards another belief than the right one. That any rule
predicts better than another is not claimed, nor that prediction helps training: what came out is
reported, beside what was expected in ``predictions.md``, whose digest ``metrics.json`` holds.
"""

from experiments import report
from experiments.evidence import drawing, within_adam
from experiments.evidence.compared import GAUSSIAN, all_scores, complete
from experiments.evidence.config import Config
from experiments.evidence.controls import simulate
from experiments.evidence.results import Compared, Results, claims, metrics
from experiments.evidence.streams import DATA, STAGES, recorded
from experiments.kept import Kept

__all__ = ["Config", "run"]


def run(config: Config) -> report.Report:
    """Simulate, record, score, train, draw."""
    kept = Kept(config.folder / "kept")
    results = Results(
        controls=simulate(config.seed),
        streams=compare(config, kept),
        within=within_adam.measure(config, kept),
    )
    drawing.draw(config.folder, results)
    return report.Report(claims(results), metrics(results, config.resamples, config.seed))


def compare(config: Config, kept: Kept) -> dict[str, Compared]:
    """All rules on all stages of all recordings; missing data are left out and named."""
    found = {}
    for name in config.data:
        try:
            task = DATA[name]()
        except FileNotFoundError as error:
            print(f"Left out: {name}. {error}")
            continue
        stream = recorded(
            kept,
            name,
            task,
            config.recorded_steps,
            config.coordinates,
            config.recordings,
            config.seed,
        )
        scored, gaussian = all_scores(stream), all_scores(stream, GAUSSIAN)
        for i, stage in enumerate(STAGES):
            found[f"{name}, {stage}"] = Compared(
                scored[stage], gaussian[stage], complete(stream, i)
            )
    return found
