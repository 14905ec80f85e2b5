"""What is claimed, and what ``metrics.json`` says."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from experiments import report
from experiments.evidence import within_adam
from experiments.evidence.compared import GAUSSIAN, PARTS, Difference, Scores, differences
from experiments.evidence.controls import Control
from experiments.evidence.within_adam import GRID, KINDS, RATES, RESULTS, Within

PREDICTIONS = Path(__file__).parent / "predictions.md"
CORRELATED = 0.01
"""What the location control may be off by: its errors are an average of two steps, so that the next
scale is told a little better than that of independent ones."""


class Compared(NamedTuple):
    """All rules on one stage of a recording.

    Attributes:
        scores: rule -> part -> scores [network, coordinate].
        gaussian: the same under a recipe with nearly Gaussian tails.
        complete: which coordinates have no gradient of exactly zero [network, coordinate].
    """

    scores: Scores
    gaussian: Scores
    complete: np.ndarray

    def differences(self) -> dict[str, dict[str, Difference | str]]:
        """Rule -> part -> difference to the reference, of complete coordinates."""
        return differences(self.scores, self.complete)


class Results(NamedTuple):
    """All parts of the experiment.

    Attributes:
        controls: part -> what simulated readings say.
        streams: "data, stage" -> all rules.
        within: task -> Adam at all pairs of memories.
    """

    controls: dict[str, Control]
    streams: dict[str, Compared]
    within: dict[str, Within]


def claims(results: Results) -> list[report.Claim]:
    """That the scores measure what they are said to, where that is known otherwise."""
    made = []
    for part, control in results.controls.items():
        name = f"simulated {part}: nats that the right belief gains"
        if control.expected is None:
            low = control.measured - 4 * control.standard_error
            made.append(report.at_least(f"{name} on every memory, less 4 standard errors", low, 0))
        else:
            slack = 4 * control.standard_error + (CORRELATED if part == "location" else 0)
            made.append(report.close(name, control.measured, control.expected, slack))
    return made


def metrics(results: Results, resamples: int, seed: int) -> dict[str, Any]:
    """What goes into metrics.json."""
    found = {name: compared.differences() for name, compared in results.streams.items()}
    rules = list(next(iter(found.values())))

    def primary(name: str) -> list[float]:
        pairs = [
            (task.scores["both"], task.trained.results["test error"])
            for task_name, task in results.within.items()
            if name in ("all", task_name)
        ]
        return within_adam.interval(pairs, resamples, seed)

    return {
        "predictions_sha256": hashlib.sha256(PREDICTIONS.read_bytes()).hexdigest(),
        "evidence": {
            rule: {
                name: {part: _value(of_stream[rule][part]) for part in PARTS}
                for name, of_stream in found.items()
            }
            for rule in rules
        },
        "within_adam": primary("all"),
        "within_adam_tasks": {
            name: {
                "correlations": {
                    kind: {
                        result: within_adam.interval(
                            [(task.scores[kind], task.trained.results[result])], resamples, seed
                        )
                        for result in RESULTS
                    }
                    for kind in KINDS
                },
                "agreement_of_seeds": {
                    result: within_adam.agreement(task.trained.results[result])
                    for result in RESULTS
                },
                "rates_at_an_end": float(np.isin(task.trained.rates, (RATES[0], RATES[-1])).mean()),
                "pairs": {
                    f"{b1:g}, {b2:g}": {
                        "score": float(task.scores["both"][k].mean()),
                        "rate": float(task.trained.rates[k]),
                        **{r: report.interval(task.trained.results[r][k]) for r in RESULTS},
                    }
                    for k, (b1, b2) in enumerate(GRID)
                },
            }
            for name, task in results.within.items()
        },
        "details": found,
        "with_zeros": {
            name: differences(compared.scores, ~compared.complete)
            for name, compared in results.streams.items()
        },
        "coordinates": {
            name: {
                "complete": int(compared.complete.sum()),
                "with_zeros": int((~compared.complete).sum()),
            }
            for name, compared in results.streams.items()
        },
        "another_recipe": {
            "degrees_of_freedom": GAUSSIAN,
            "rank_correlation": {
                name: {part: _same_order(compared, part) for part in PARTS}
                for name, compared in results.streams.items()
            },
        },
        "controls": results.controls,
    }


def _value(found: Difference | str) -> float | str:
    return found if isinstance(found, str) else found.trimmed_mean[0]


def _same_order(compared: Compared, part: str) -> float:
    """Rank correlation over rules of the differences under the two recipes."""
    both = [differences(s, compared.complete) for s in (compared.scores, compared.gaussian)]
    pairs = [
        (one.trimmed_mean[0], other.trimmed_mean[0])
        for one, other in ((found[rule][part] for found in both) for rule in both[0])
        if isinstance(one, Difference) and isinstance(other, Difference)
    ]
    correlation: Any = stats.spearmanr(np.array(pairs))
    return float(correlation.statistic)
