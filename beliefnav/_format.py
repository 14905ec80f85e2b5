"""Hyper-parameters as words, for tables that people read."""

import math
from typing import Any

import numpy as np

from beliefnav._checks import is_concrete

__all__ = ["counted", "known", "memory", "number", "reciprocal"]


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


def counted(value: Any, unit: str) -> str:
    """So many units, as in ``10 steps``."""
    if number(value) == "inf":
        return "unlimited"
    return f"{number(value)} {unit}" + ("" if number(value) == "1" else "s")


def reciprocal(value: Any) -> Any:
    """``1 / value``, infinite at 0."""
    return math.inf if known(value) == 0 else 1 / value


def memory(discount: Any, unit: str = "step") -> str:
    r"""The memory $1/(1-\beta)$ of a discount, as in ``memory 10 steps``."""
    return f"memory {counted(reciprocal(1 - discount), unit)}"
