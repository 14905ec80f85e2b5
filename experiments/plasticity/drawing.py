"""Figures."""


def draw(found, out) -> None:
    """None yet."""
