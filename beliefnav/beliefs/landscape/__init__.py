"""Beliefs about gradient and curvature, or the optimum, as the parameters move."""
