"""Ten steps of every belief: its states, and what is read off them."""

from typing import Any

import streams
from belief_cases import CASES, Case
from names import advance, beliefs, optimum
from recorder import Recorder

PyTree = Any


def eager(recorder: Recorder) -> None:
    """States, posteriors and diagnostics in float64 and, but for variants, in float32."""
    for name, case in CASES.items():
        recorder.item(f"beliefs/{name}/float64", follow, case, "float64")
        if "," not in name:
            recorder.item(f"beliefs/{name}/float32", follow, case, "float32")
    recorder.item("initial_variance", lambda: beliefs.initial_variance(streams.params("float64")))
    recorder.item("HazardGrid.beta", lambda: beliefs.HazardGrid.beta(1.0, 9.0, 5))
    recorder.item("HazardGrid.log_uniform", lambda: beliefs.HazardGrid.log_uniform(1e-3, 0.5, 5))


def follow(case: Case, dtype: str) -> dict[str, list[Any]]:
    """What a belief is, says and is told at every step; a second sensor reads at even ones."""
    filter_ = case.make().filter()
    params = streams.params(dtype)
    state = filter_.init(params)
    path: dict[str, list[Any]] = {"state": [state], "posterior": [state.posterior()], "info": []}
    steps = zip(
        streams.gradients(dtype), streams.displacements(dtype), _readings(case, dtype), strict=True
    )
    for gradient, displacement, curvature in steps:
        moved = displacement if filter_.uses_displacement else None
        state, info = advance(filter_, filter_.predict(state, moved), gradient, curvature)
        path["state"].append(state)
        path["posterior"].append(state.posterior())
        path["info"].append(info)
        for name, read in _reads(state, params).items():
            path.setdefault(name, []).append(read)
    return path


def _readings(case: Case, dtype: str) -> list[PyTree]:
    if case.reading is None:
        return [None] * streams.STEPS
    make = streams.diagonals if case.reading == "diagonal" else streams.matrices
    return [reading if t % 2 == 0 else None for t, reading in enumerate(make(dtype))]


def _reads(state: Any, params: PyTree) -> PyTree:
    """What some states can be asked for besides their posterior."""
    reads = {"optimum": optimum(state, params)}
    if hasattr(state, "noise_variance") and callable(state.noise_variance):
        reads["noise_variance"] = state.noise_variance()
    return reads
