"""Wrappers around any optax optimizer."""

from beliefnav.wrappers.task_switches import two_hypothesis

__all__ = ["two_hypothesis"]
