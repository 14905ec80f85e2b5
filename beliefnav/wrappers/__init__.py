"""Wrappers around any optax optimizer."""

from beliefnav.wrappers.contract import Wrapper, wrapper
from beliefnav.wrappers.task_switches import TwoHypothesisState, two_hypothesis

__all__ = ["TwoHypothesisState", "Wrapper", "two_hypothesis", "wrapper"]
