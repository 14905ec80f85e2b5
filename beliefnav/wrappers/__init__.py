"""Wrappers around any optax optimizer."""

from beliefnav.wrappers.task_switches import TwoHypothesisState, two_hypothesis

__all__ = ["TwoHypothesisState", "two_hypothesis"]
