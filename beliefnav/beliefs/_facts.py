"""Sentences that several beliefs share."""

from typing import Any

from beliefnav._format import counted, known, number
from beliefnav.beliefs.contract import Fact

__all__ = ["prior"]


def prior(quantity: str, size: Any, value: Any, time: str = "step") -> Fact:
    """What is believed of a quantity at first, and how firmly.

    Args:
        quantity: what it is about, in a word; empty for all that is believed.
        size: as if it had been observed so often.
        value: the prior mean.
        time: the unit of time: ``"step"``, or ``"reading"`` of a second sensor.
    """
    subject = f"{quantity} prior".strip()
    unit = "observation" if time == "step" else time
    if known(size) != 0:
        sentence = f"At first it is believed to be {number(value)}, as if seen this often."
        return Fact(subject, counted(size, unit), sentence)
    sentence = "Nothing is known at first: averages are corrected for their bias."
    return Fact(subject, f"0 {unit}s", sentence)
