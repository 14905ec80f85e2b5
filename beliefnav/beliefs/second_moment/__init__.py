"""Beliefs about the size of the gradient, read as curvature."""
