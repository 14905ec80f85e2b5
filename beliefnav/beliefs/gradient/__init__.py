"""Beliefs about the stream of the gradient of each parameter."""
