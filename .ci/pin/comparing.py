"""Two runs side by side: what is equal to the byte or to a tolerance, and what differs how much."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np
from intended import Intended
from recorder import Leaf

Items = Mapping[str, Mapping[str, Leaf]]

TOLERANCES: dict[str, float] = {"jitted/*": 1e-12, "numpyro_nuts": 1e-9, "laplace": 1e-9}
"""Item pattern -> up to what share of the largest entry of a leaf two runs may differ: those that
XLA compiled as a whole, whose rounding depends on what it fuses. All others agree in every byte."""


class Difference(NamedTuple):
    """One leaf that is not the same.

    Attributes:
        item: the item that it belongs to.
        leaf: its path.
        what: how the two differ, in words.
        absolute: the largest difference of two finite entries, NaN where there is none.
        relative: that, as a share of the largest finite entry of the base.
    """

    item: str
    leaf: str
    what: str
    absolute: float = float("nan")
    relative: float = float("nan")


def differences(base: Items, head: Items) -> Iterator[Difference]:
    """All leaves that differ, in the order of the base; then those that only the head has."""
    for item in (*base, *(item for item in head if item not in base)):
        if item not in head or item not in base:
            yield Difference(item, "", f"only in the {'base' if item in base else 'head'}")
            continue
        one, other = base[item], head[item]
        if _failed(one) != _failed(other):
            # What follows from that, a leaf here and none there, would say the same again.
            yield Difference(item, "", f"base: {_outcome(one)}; head: {_outcome(other)}")
            continue
        for leaf in (*one, *(leaf for leaf in other if leaf not in one)):
            if leaf not in one or leaf not in other:
                yield Difference(item, leaf, f"only in the {'base' if leaf in one else 'head'}")
            elif one[leaf] != other[leaf]:
                found = _compared(item, leaf, one[leaf], other[leaf])
                yield from () if found is None else (found,)


def sorted_out(
    found: Sequence[Difference], intended: Sequence[Intended]
) -> tuple[list[Difference], dict[Intended, list[Difference]]]:
    """The differences that nobody intended, and those that each intention explains."""
    explained: dict[Intended, list[Difference]] = {entry: [] for entry in intended}
    unexpected = []
    for difference in found:
        matching = [
            entry
            for entry in intended
            if fnmatchcase(difference.item, entry.item) and fnmatchcase(difference.leaf, entry.leaf)
        ]
        for entry in matching:
            explained[entry].append(difference)
        if not matching:
            unexpected.append(difference)
    return unexpected, explained


def told(found: Sequence[Difference]) -> Iterator[str]:
    """A line for all leaves of an item that differ alike at several steps."""
    groups: dict[tuple[str, str, str], list[Difference]] = {}
    for difference in found:
        where = re.sub(r"(?<=/)\d+(?=/|$)", "*", difference.leaf, count=1)
        groups.setdefault((difference.item, where, difference.what), []).append(difference)
    for (item, where, what), group in groups.items():
        times = f" ({len(group)} leaves)" if len(group) > 1 else ""
        size = ""
        if any(d.absolute == d.absolute for d in group):
            absolute, relative = (
                np.nanmax([getattr(d, name) for d in group]) for name in ("absolute", "relative")
            )
            size = f": {absolute:.2e} absolute, {relative:.2e} relative"
        yield f"{item}  {where}{times}  {what}{size}"


def _failed(leaves: Mapping[str, Leaf]) -> bool:
    return "error" in leaves or "absent" in leaves


def _outcome(leaves: Mapping[str, Leaf]) -> str:
    for kind in ("error", "absent"):
        if kind in leaves:
            return leaves[kind].data.decode()
    return "numbers"


def _compared(item: str, path: str, one: Leaf, other: Leaf) -> Difference | None:
    """How two leaves differ; ``None`` if they are equal to the tolerance of the item."""
    if "text" in (one.dtype, other.dtype):
        return Difference(item, path, _reworded(_words(one), _words(other)))
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        kinds = (f"{leaf.dtype}{list(leaf.shape)}" for leaf in (one, other))
        return Difference(item, path, "{} became {}".format(*kinds))
    x, y = (np.frombuffer(leaf.data, leaf.dtype).astype(float) for leaf in (one, other))
    finite = np.isfinite(x) & np.isfinite(y)
    absolute = np.abs(x - y)[finite].max(initial=0.0)
    largest = np.abs(x)[np.isfinite(x)].max(initial=0.0)
    relative = absolute / largest if largest else (0.0 if absolute == 0 else np.inf)
    alike = bool(np.all(finite | (x == y) | (np.isnan(x) & np.isnan(y))))
    tolerance = next((t for pattern, t in TOLERANCES.items() if fnmatchcase(item, pattern)), None)
    if tolerance is not None and alike and relative <= tolerance:
        return None
    if alike and absolute == 0:
        return Difference(item, path, "equal but for signs of zeros or bits of NaN")
    what = "" if alike else "other entries are NaN or infinite, "
    return Difference(item, path, f"{what}numbers differ", absolute, relative)


def _words(leaf: Leaf) -> str:
    return leaf.data.decode() if leaf.dtype == "text" else f"{leaf.dtype}{list(leaf.shape)}"


def _reworded(before: str, after: str) -> str:
    """The lines of two texts that are not in both."""
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return "\n    ".join(["words differ", *(line for line in lines if line[:2] in ("- ", "+ "))])
