"""Hyper-parameters as words, for tables that people read."""

from typing import Any

import numpy as np

from beliefnav._checks import is_concrete

__all__ = ["known", "number"]


def known(value: Any) -> float | None:
    """A hyper-parameter as a number; ``None`` for a schedule, a traced one or an array of them."""
    if callable(value) or not is_concrete(value) or np.size(value) != 1:
        return None
    return float(value)


def number(value: Any) -> str:
    """A hyper-parameter in four digits; a schedule or a traced one in words."""
    if callable(value):
        return "a schedule"
    x = known(value)
    if x is None:
        return "traced" if not is_concrete(value) else "an array"
    return f"{x:,.0f}" if 999.5 <= abs(x) < 1e6 else f"{x:.4g}"
