"""Experiments: one file a claim. ``python -m experiments`` lists them."""
