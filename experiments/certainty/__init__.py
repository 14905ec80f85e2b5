"""Averages, schedules, and both: what to hand over when learning ends."""
