"""What a stream can say of a learner: its layout checked, its rounding known, its faults named."""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from beliefnav.recording.dataset import check_layout

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["COARSE", "CONSTANT", "MAX_STEPS", "MIN_ENTRIES", "MIN_STEPS", "Seen", "read"]

Floats = NDArray[np.float64]

MIN_ENTRIES, MIN_STEPS = 200, 20
"""Fewer displacements say little of six numbers and as many options."""
MAX_STEPS = 1000
"""Of a longer recording the first steps are used."""
COARSE = 1e-4
"""Relative spacing beyond that of float32."""
CONSTANT = 1e-3
"""A gradient that varies by no larger share of itself tells no memory and no power."""


class Seen(NamedTuple):
    """A stream as arrays, and what has to be said of it.

    Attributes:
        gradient: [step, param].
        displacement: [step, param].
        params: [step, param]; from the start, where only the displacements are known.
        seen: [step, param], 1 where the displacement is known and is judged, else 0.
        variance: [step, param], of what rounding does to the displacement.
        norm: [step], or ``None``.
        labels: of the coordinates.
        first_step: the count of the first step.
        precision: relative spacing of the numbers that the learner works with.
        rounding_known: whether the parameters were recorded.
        started: whether the recording holds the first step of the learner.
        statements: what is wrong with the stream.
        usable: whether anything can be told.
    """

    gradient: Floats
    displacement: Floats
    params: Floats
    seen: Floats
    variance: Floats
    norm: Floats | None
    labels: list[str]
    first_step: int
    precision: float
    rounding_known: bool
    started: bool
    statements: tuple[str, ...]
    usable: bool

    @property
    def coarse(self) -> bool:
        """Whether the learner works in half precision, whose rounding is no small noise."""
        return self.precision > COARSE


def read(stream: "xr.Dataset") -> Seen:
    r"""A stream as arrays.

    A displacement is the difference of two rounded parameters: one rounding enters with each step,
    that of the parameter after it, of variance $\mathrm{ulp}(\theta_{t+1})^2 / 12$ (Widrow and
    Kollar, "Quantization Noise", 2008, for when this holds: steps of several ulp). The learner also
    rounds while it computes: an error of one unit of the mantissa of its usual step is added.

    Args:
        stream: ``gradient`` and ``displacement`` of dimensions (step, param); ``params``, the
            parameters before each step, and ``gradient_norm`` (step) if they were recorded. Its
            coordinate ``step``, if there is one, counts from 0 at the first step of the learner.

    Returns:
        The longest part without gaps in the gradients, or its first `MAX_STEPS`, of the coordinates
        that moved.

    Raises:
        ValueError: the stream has another layout, no displacement, or lacks steps in between.
    """
    check_layout(stream, ("step", "param"))
    if "displacement" not in stream:
        raise ValueError(
            "Cannot infer what a learner assumes from gradients alone. This is because they do not "
            "say how it moved; record the displacement too."
        )
    names = [n for n in ("gradient", "displacement", "params") if n in stream]
    raw = {n: stream[n].transpose("step", "param").values.astype(float) for n in names}
    g, d = raw["gradient"], raw["displacement"]
    norm = stream["gradient_norm"].values.astype(float) if "gradient_norm" in stream else None
    labels = [str(x) for x in stream["param"].values] if "param" in stream.coords else []
    labels = labels or [str(i) for i in range(g.shape[1])]
    said: list[str] = []

    first = _first_step(stream)
    whole = np.isfinite(g).all(1)
    if norm is not None:
        whole &= np.isfinite(norm)
    begin, end = _longest(whole)
    end = min(end, begin + MAX_STEPS)
    if not whole.all():
        said.append(
            f"Gaps: the gradients of {int((~whole).sum())} of {len(g)} steps are missing, and what "
            f"the learner remembers of them; the {end - begin} steps from {begin} on are used."
        )
    rows = slice(begin, end)
    g, d = g[rows], d[rows]
    norm = None if norm is None else norm[rows]
    first += begin
    if first:
        said.append(
            f"Late: the learner had made {first} steps before; what it remembered then is not "
            "known, nor memories as long as the recording; the first half only fills its memory."
        )
    seen = np.isfinite(d)
    if first:
        seen[: len(seen) // 2] = False
    d = np.where(np.isfinite(d), d, 0)
    if "params" in raw and np.isfinite(raw["params"][rows]).all():
        theta, known = raw["params"][rows], True
    else:
        theta, known = np.concatenate([np.zeros_like(d[:1]), np.cumsum(d, 0)[:-1]]), False
        some = "some are missing" if "params" in raw else "they were not recorded"
        said.append(
            f"No parameters ({some}): decay to 0 is not told, nor whether what is not explained is "
            "rounding."
        )
    moves = (d != 0).any(0)
    said += _frozen(g, d, seen, moves, labels, first)
    dtype = _stored_as(theta) if known and theta.size else jnp.float32
    eps = float(jnp.finfo(dtype).eps)
    size = np.sqrt((d**2).sum(0, keepdims=True) / max(len(d), 1))
    computed = max(eps, 1e-10) * (np.abs(d) + size)
    rounded = _spacing(theta + d, eps) if known else np.zeros_like(d)
    variance = rounded**2 / 12 + computed**2
    why = _too_little(g[:, moves], seen[:, moves])
    said += why
    if eps > COARSE:
        share = (seen * variance)[:, moves].sum() / max((seen * d**2)[:, moves].sum(), 1e-300)
        said.append(
            f"Coarse: the parameters are {jnp.dtype(dtype).name}, whose rounding is {share:.2g} of "
            "the movement, and the learner's own arithmetic may be as coarse; no rule is told."
        )
    return Seen(
        g[:, moves],
        d[:, moves],
        theta[:, moves],
        seen[:, moves].astype(float),
        variance[:, moves],
        norm,
        [label for label, moved in zip(labels, moves, strict=True) if moved],
        first,
        eps,
        known,
        first == 0,
        tuple(said),
        not why,
    )


def _first_step(stream: "xr.Dataset") -> int:
    """How many steps the learner had made before; raise unless steps follow one another."""
    steps, lost = stream["step"].values, int(stream.attrs.get("steps_overwritten", 0))
    if not np.issubdtype(steps.dtype, np.integer) or not steps.size:
        return lost
    if (np.diff(steps) != 1).any():
        raise ValueError(
            "Cannot infer what a learner assumes from steps that do not follow one another. This "
            "is because it remembers the gradients of all steps; give every step from the first to "
            "the last, in order."
        )
    return max(lost, int(steps[0]))


def _frozen(
    g: Floats, d: Floats, seen: Any, moves: Any, labels: list[str], first: int
) -> list[str]:
    """What is said of coordinates and of steps that do not move."""
    said: list[str] = []
    if not moves.all():
        still = [labels[i] for i in np.flatnonzero(~moves)]
        said.append(
            f"Frozen: {len(still)} of {len(moves)} coordinates never move "
            f"({', '.join(still[:5])}{', ...' if len(still) > 5 else ''}); they are left out."
        )
    stands = ~(d != 0).any(1) & seen.any(1) & (g != 0).any(1)
    if stands.any() and moves.any():
        said.append(
            f"Frozen: at {int(stands.sum())} of {len(d)} steps nothing moves (the first is step "
            f"{first + int(np.flatnonzero(stands)[0])}), though there are gradients."
        )
    return said


def _too_little(g: Floats, seen: Any) -> list[str]:
    """Why nothing can be told by the coordinates that move, if so."""
    steps, params = g.shape
    if not params:
        return ["Frozen: no coordinate moves; nothing is told."]
    if int(seen.sum()) < MIN_ENTRIES or steps < MIN_STEPS:
        return [
            f"Short: {steps} steps of {params} coordinates; at least {MIN_STEPS} steps and "
            f"{MIN_ENTRIES} displacements are needed to tell one learner from another."
        ]
    if (g.std(0) <= CONSTANT * np.sqrt((g**2).mean(0))).all():
        return [
            "Constant: no gradient changes by more than a thousandth of itself, and learners of "
            "any memory, power or sign then move alike; nothing is told."
        ]
    return []


def _stored_as(values: Floats) -> Any:
    """The narrowest floating-point type that holds all of these numbers.

    What an array is kept in says little: half precision is often recorded in float32, and float32
    in float64.
    """
    for dtype in (jnp.bfloat16, jnp.float16, jnp.float32):
        with np.errstate(over="ignore"):
            if np.array_equal(values.astype(dtype).astype(float), values):
                return dtype
    return jnp.float64


def _spacing(values: Floats, eps: float) -> Floats:
    """The distance to the next number of a relative spacing (that at 1)."""
    return eps * np.exp2(np.frexp(np.abs(values))[1] - 1.0) * (values != 0)


def _longest(whole: Any) -> tuple[int, int]:
    """The longest run of true entries, as [begin, end)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], whole.astype(int), [0]])))
    runs = edges.reshape(-1, 2)
    if not len(runs):
        return 0, 0
    begin, end = runs[np.argmax(runs[:, 1] - runs[:, 0])]
    return int(begin), int(end)
