"""Wrappers around any optax optimizer."""

from beliefnav.wrappers.averaging import iterate_averaging
from beliefnav.wrappers.combining import combined_average
from beliefnav.wrappers.task_switches import two_hypothesis

__all__ = ["combined_average", "iterate_averaging", "two_hypothesis"]
