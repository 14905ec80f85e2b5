"""Beliefs about an optimum that is drawn anew when the task switches."""
