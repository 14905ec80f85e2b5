"""Benchmarks: cost relative to the peer, measured in the same run."""
