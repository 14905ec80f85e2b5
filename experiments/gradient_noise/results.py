"""What the answers come to: claims, ``metrics.json``, and a table."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import report
from experiments.gradient_noise.beliefs import Answer, Learned
from experiments.gradient_noise.config import Config
from experiments.gradient_noise.training import Retrained


def interval(fit: Learned, name: str) -> dict[str, dict[str, np.ndarray]]:
    """Layer -> stage -> median and central 90 % interval of a site [layer]."""
    quantiles = fit.posterior[name].quantile([0.5, 0.05, 0.95], ("chain", "draw"))
    return {
        str(layer): {
            str(stage): quantiles.sel(stage=stage).isel(layer=i).values
            for stage in fit.posterior["stage"].values
        }
        for i, layer in enumerate(fit.posterior["layer"].values)
    }


def settings(answer: Answer) -> dict[str, dict[str, tuple[float, float]]]:
    """Setting -> layer -> the two memories to train with."""

    def medians(model: str, name: str) -> dict[str, float]:
        """Layer -> median over draws and stages, of the length of the memory."""
        draws = answer.fits[model].posterior[name]
        middle = draws.median(("chain", "draw", "stage"))
        return dict(zip(answer.stream.layers.names, middle.values.tolist(), strict=True))

    def common(memories: dict[str, float]) -> dict[str, float]:
        return dict.fromkeys(memories, float(np.median(list(memories.values()))))

    beta1 = medians("Ornstein-Uhlenbeck", "implied_beta1")
    level = medians("local level", "implied_beta1")
    beta2 = medians("precision walk", "implied_beta2")

    def pairs(one: dict[str, float], other: dict[str, float]) -> dict[str, tuple[float, float]]:
        return {layer: (one[layer], other[layer]) for layer in one}

    return {
        "0.9, 0.999 (Adam's defaults)": dict.fromkeys(beta1, (0.9, 0.999)),
        "learned, the same for all layers": pairs(common(beta1), common(beta2)),
        "learned, by layer": pairs(beta1, beta2),
        "learned β1, 0.999": {layer: (b, 0.999) for layer, b in common(beta1).items()},
        "β1 of the local level, 0.999": {layer: (b, 0.999) for layer, b in common(level).items()},
    }


def claims(config: Config, answer: Answer) -> list[report.Claim]:
    """A memory that was learned predicts no worse than one that was not, or than none."""
    stream, scores = answer.stream, answer.scores
    result = []
    for learned, fixed in (
        ("local level", "level, Adam's 0.9"),
        ("precision walk", "precision, Adam's 0.999"),
        ("Ornstein-Uhlenbeck", "no memory"),
    ):
        gain = (scores[learned].elpd - scores[fixed].elpd) / stream.num_held_out
        name = f"{stream.name}: {learned} over {fixed}, nats a held-out gradient"
        result.append(report.at_least(name, gain, 0.0, 0.01 if config.quick else 0.002))
    return result


def metrics(
    answers: Sequence[Answer], retrained: dict[str, dict[str, Retrained]]
) -> dict[str, Any]:
    """What goes into ``metrics.json``; if there are several data sets, names begin with theirs."""
    several = len(answers) > 1
    result: dict[str, Any] = defaultdict(dict)
    for answer in answers:
        prefix = f"{answer.stream.name}: " if several else ""
        for field, model, site in (
            ("implied_beta1", "Ornstein-Uhlenbeck", "implied_beta1"),
            ("implied_beta1_local_level", "local level", "implied_beta1"),
            ("implied_beta2", "precision walk", "implied_beta2"),
            ("signal_to_noise", "Ornstein-Uhlenbeck", "signal_to_noise_ratio"),
        ):
            rows = interval(answer.fits[model], site)
            result[field] |= {f"{prefix}{layer}": row for layer, row in rows.items()}
        for model, score in answer.scores.items():
            result["elpd"][f"{prefix}{model}"] = score.elpd
            result["coverage_90"][f"{prefix}{model}"] = score.intervals
            if model in answer.fits:
                loo = (score.loo, score.loo_error, score.loo_unreliable)
                names = ("elpd", "standard_error", "unreliable")
                result["loo"][f"{prefix}{model}"] = dict(zip(names, loo, strict=True))
        for model, fit in answer.fits.items():
            table = fit.diagnostics
            result["converged"][f"{prefix}{model}"] = {
                str(stage): {name: table[name].sel(stage=stage).values for name in table.data_vars}
                for stage in table["stage"].values
            }
        result["left_out"] |= {f"{prefix}{n}": k for n, k in answer.stream.left_out.items()}
        for setting, outcome in retrained.get(answer.stream.name, {}).items():
            result["retrained"][f"{prefix}{setting}"] = outcome.accuracy
            result["retraining"][f"{prefix}{setting}"] = {
                "memories": outcome.memories,
                "learning_rate": outcome.learning_rate,
                "test": outcome.test,
            }
    return result
