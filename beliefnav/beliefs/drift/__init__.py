"""Beliefs about the drift: how parameters move without being told to."""
