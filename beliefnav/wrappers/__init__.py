"""Wrappers around any optax optimizer."""

from beliefnav.wrappers import combining, uncontrolled
from beliefnav.wrappers.averaging import iterate_averaging
from beliefnav.wrappers.task_switches import two_hypothesis

__all__ = ["combining", "iterate_averaging", "two_hypothesis", "uncontrolled"]
