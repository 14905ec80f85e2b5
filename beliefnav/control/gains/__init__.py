"""Gains: what a policy multiplies a gradient with, in closed form."""
