"""Belief from observations: filters over whole recordings."""

from beliefnav.filters.recording import filter_recording, log_likelihood

__all__ = ["filter_recording", "log_likelihood"]
