"""What is told in words: signatures, the facts of rules, and how far the atlas finds them apart."""

import inspect
from typing import Any

import optax
from names import atlas, beliefs, control, filters, inference, problems, recordings, root, rules
from names import wrappers as wrapped
from recorder import Recorder
from rule_cases import CASES, metric

PyTree = Any

ROWS = (
    "sgd",
    "nesterov",
    "adam",
    "nadam with a prior",
    "lamb",
    "resetting",
    "hazard_filter",
    "countering",
    "muon",
    "ivon",
    "horizon, exact hold",
)
"""Rules of the rows of the atlas that are measured."""

FUNCTIONS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "beliefnav": (
        root,
        ("navigator", "scale_by_navigation", "posterior", "sample_params", "explain", "Objective"),
    ),
    "recording": (
        recordings,
        (
            "record",
            "to_dataset",
            "to_arviz",
            "to_groups",
            "to_container",
            "read_stream",
            "from_arrays",
            "Recording",
        ),
    ),
    "inference": (
        inference,
        (
            "target",
            "simulate",
            "informative",
            "numpyro_nuts",
            "blackjax_nuts",
            "laplace",
            "map_estimate",
            "map_draws",
            "predict",
            "summary",
        ),
    ),
    "filters": (
        filters,
        (
            "filter_recording",
            "log_likelihood",
            "smooth_recording",
            "sample_paths",
            "last_state",
            "forecast",
            "filter_chunks",
            "smooth_chunks",
            "change_points",
            "sample_switches",
        ),
    ),
    "beliefs": (
        beliefs,
        (
            "LocalLevel",
            "OrnsteinUhlenbeck",
            "Transient",
            "Wiener",
            "RetractedLevel",
            "PrecisionWalk",
            "UniformWalk",
            "WishartWalk",
            "KroneckerWalk",
            "Secant",
            "Optimum",
            "FisherOptimum",
            "SwitchingOptimum",
            "HazardGrid",
            "RunLengths",
            "TwoHypotheses",
            "RunLengthReset",
            "UnknownNoise",
            "independent",
            "sensed",
            "shared",
            "positive",
            "look_ahead",
            "accumulated",
            "initial_variance",
            "steady_sample_size",
        ),
    ),
    "wrappers": (wrapped, ("two_hypothesis",)),
}
"""Public functions whose arguments are pinned, besides all of `rules` and `control`."""


def signatures(recorder: Recorder) -> None:
    """The arguments of public functions, each with its kind, its position and its default."""
    for home, names in (("rules", rules), ("control", control)):
        elsewhere = FUNCTIONS["wrappers"][1]
        for name in names.public():
            if name not in elsewhere and callable(getattr(names, name)):
                recorder.item(f"signatures/{home}.{name}", arguments, names, name)
    for home, (names, public) in FUNCTIONS.items():
        for name in public:
            recorder.item(f"signatures/{home}.{name}", arguments, names, name)


def arguments(names: Any, name: str) -> dict[str, str]:
    """Argument -> what it is, without its annotation; the order counts where it can be used."""
    found = inspect.signature(getattr(names, name)).parameters.values()

    def told(position: int, argument: inspect.Parameter) -> str:
        place = argument.kind.description
        if argument.kind is not inspect.Parameter.KEYWORD_ONLY:
            place = f"{place}, number {position}"
        if argument.default is inspect.Parameter.empty:
            return f"{place}, required"
        return f"{place}, {argument.default!r} by default"

    return {argument.name: told(i, argument) for i, argument in enumerate(found)}


def assumed(recorder: Recorder) -> None:
    """The facts of every rule, printed, and those of calls of optax's own."""
    for name, case in CASES.items():
        recorder.item(f"facts/{name}", _printed, case.assumptions)
    explained: dict[str, tuple[Any, ...]] = {
        "sgd": (optax.sgd, (0.1,)),
        "sgd, momentum": (optax.sgd, (0.1,), {"momentum": 0.5}),
        "sgd, nesterov": (optax.sgd, (0.1,), {"momentum": 0.5, "nesterov": True}),
        "adam": (optax.adam, (0.1,), {"b1": 0.8}),
        "adam, nesterov": (optax.adam, (0.1,), {"nesterov": True}),
        "adamw": (optax.adamw, (optax.constant_schedule(0.1),), {"weight_decay": 0.2}),
        "adagrad": (optax.adagrad, (0.1,)),
        "adamax": (optax.adamax, (0.1,)),
        "lion": (optax.lion, (0.1,)),
        "nadam": (optax.nadam, (0.1,)),
        "rmsprop": (optax.rmsprop, (0.1,), {"initial_scale": 0.5}),
        "rmsprop, centered": (optax.rmsprop, (0.1,), {"centered": True}),
        "signum": (optax.signum, (0.1,)),
        "amsgrad": (optax.amsgrad, (0.1,)),
        "lamb": (optax.lamb, (0.1,)),
        "adabelief": (optax.adabelief, (0.1,)),
        "natural_gradient": (rules.natural_gradient, (0.1, metric)),
    }
    for name, call in explained.items():
        recorder.item(f"explained/{name}", _explained, *call)


def _printed(assumptions: Any) -> str:
    return str(assumptions())


def _explained(optimizer: Any, given: tuple[Any, ...], options: Any = None) -> str:
    return str(root.explain(optimizer, *given, **(options or {})))


def measured(recorder: Recorder) -> None:
    """Rows of the atlas, on few steps of a quadratic: whether they hold, and how far apart."""
    few = (problems.quadratic(6),)
    chosen = [row for row in atlas.rows() if row.rule in ROWS]
    for row in chosen:
        recorder.item(f"atlas/{row.rule} = {row.compared_with}", _entry, row, few)
    every = [
        f"{row.rule} = {row.compared_with}: {row.verdict}. {row.reason}" for row in atlas.rows()
    ]
    recorder.item("atlas", lambda: {"rows": "\n".join(every)})


def _entry(row: Any, few: Any) -> PyTree:
    entry = atlas.measure(row, few)._asdict()
    entry["assumptions"] = "\n".join(map(str, entry["assumptions"]))
    return entry
