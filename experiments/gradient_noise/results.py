"""What the answers come to: claims, and ``metrics.json``."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import report
from experiments.gradient_noise.beliefs import Answer, Learned
from experiments.gradient_noise.config import Config
from experiments.gradient_noise.training import Retrained

MEMORIES = {
    "implied_beta1": ("Ornstein-Uhlenbeck", "implied_beta1"),
    "implied_beta1_local_level": ("local level", "implied_beta1"),
    "implied_beta2": ("precision walk", "implied_beta2"),
}
"""Name in ``metrics.json`` -> model and site."""


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


def memories(answer: Answer, model: str, site: str) -> dict[str, float]:
    """Layer -> median over draws and stages, of the length of the memory."""
    middle = answer.fits[model].posterior[site].median(("chain", "draw", "stage"))
    return dict(zip(answer.stream.layers.names, middle.values.tolist(), strict=True))


def settings(answer: Answer) -> dict[str, dict[str, tuple[float, float]]]:
    """Setting -> layer -> the two memories to train with."""

    def common(memories: dict[str, float]) -> dict[str, float]:
        return dict.fromkeys(memories, float(np.median(list(memories.values()))))

    beta1, level, beta2 = (memories(answer, *source) for source in MEMORIES.values())

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
    """What goes into ``metrics.json``: stream -> what came out."""
    said = {a.stream.name: _of_stream(a, retrained.get(a.stream.name, {})) for a in answers}
    return {"streams": said}


def _of_stream(answer: Answer, retrained: dict[str, Retrained]) -> dict[str, Any]:
    scores, fits = answer.scores, answer.fits
    gains = {
        model: (score.elpd - scores["no memory"].elpd) / answer.stream.num_held_out
        for model, score in scores.items()
    }
    result = {field: interval(fits[model], site) for field, (model, site) in MEMORIES.items()}
    result["signal_to_noise"] = interval(fits["Ornstein-Uhlenbeck"], "signal_to_noise_ratio")
    result |= {
        "range_over_layers": {
            field: {"least": min(each.values()), "largest": max(each.values())}
            for field, source in MEMORIES.items()
            for each in [memories(answer, *source)]
        },
        "elpd": {model: score.elpd for model, score in scores.items()},
        "nats_over_no_memory": gains,
        "best_mean_nats_over_no_memory": max(gains["Ornstein-Uhlenbeck"], gains["local level"]),
        "coverage_90": {model: score.intervals for model, score in scores.items()},
        "loo": {
            model: {
                "elpd": scores[model].loo,
                "standard_error": scores[model].loo_error,
                "unreliable": scores[model].loo_unreliable,
            }
            for model in fits
        },
        "converged": {
            model: {
                str(stage): {name: table[name].sel(stage=stage).values for name in table.data_vars}
                for stage in table["stage"].values
            }
            for model, fit in fits.items()
            for table in [fit.diagnostics]
        },
        "left_out": answer.stream.left_out,
        "retrained": {setting: outcome.accuracy for setting, outcome in retrained.items()},
        "retraining": {
            setting: {
                "memories": outcome.memories,
                "learning_rate": outcome.learning_rate,
                "test": outcome.test,
            }
            for setting, outcome in retrained.items()
        },
    }
    if retrained:
        chosen = [outcome.test[outcome.learning_rate] for outcome in retrained.values()]
        result["seeds_differ_by"] = max(float(np.ptp(accuracies)) for accuracies in chosen)
    sampled = [fit.diagnostics for fit in fits.values() if "r_hat" in fit.diagnostics]
    if sampled:
        result["sampled"] = {
            "max_r_hat": max(float(table["r_hat"].max()) for table in sampled),
            "min_ess_bulk": min(float(table["ess_bulk"].min()) for table in sampled),
            "divergences": sum(int(table["divergences"].sum()) for table in sampled),
        }
    return result
