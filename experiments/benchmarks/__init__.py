"""Benchmarks: what the library costs beside its peers. ``python -m experiments.benchmarks``."""

BENCHMARKS = ("averaging", "filters", "inference", "optimizer_step", "resetting")
"""All benchmarks."""
