r"""The atlas of learning rules: each as assumptions, compared with another implementation.

``python -m beliefnav.atlas`` builds every rule of `beliefnav.rules` from its assumptions, runs it
for 500 steps beside another implementation (optax's where there is one; both are given the
same gradients and readings of the curvature), on a noisy quadratic in coupled parameters and on a
small network, and prints how far the parameters are apart at most. With ``--markdown`` it prints
what is claimed of them, the README of this package, which is the same on every machine. What is
claimed is one of

- ``exact``: equal but for rounding;
- ``limit``: equal in the limit of a small parameter, at the order that is measured;
- ``approximate``: not equal, for the reason given;
- ``no model known``: no belief that is a model of gradients is known to give the rule, for the
  reason given; the deviation is that of the nearest rule of which one is.

``exact`` says that two programs are equal, not that the rule was derived. `forbidding` says what
kind of belief a row has, and which gradients would speak against it.

`beliefnav.explain` says what a call of an optimizer assumes, optax's own included.

Example:
    >>> from beliefnav import atlas
    >>> from beliefnav.atlas.problems import quadratic
    >>> row = next(row for row in atlas.rows() if row.rule == "sign_sgd")
    >>> measured = atlas.measure(row, [quadratic(10)])
    >>> measured.verdict, measured.holds
    ('exact', True)
"""

from beliefnav.atlas.measuring import measure
from beliefnav.atlas.table import rows

__all__ = ["measure", "rows"]
