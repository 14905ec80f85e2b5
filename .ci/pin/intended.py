"""Differences between two revisions that are meant, each with its reason.

Patterns are those of `fnmatch`: ``*`` matches any text, slashes included. An entry that matches
nothing is reported as unused, and can go.
"""

from typing import NamedTuple


class Intended(NamedTuple):
    """A difference that is meant.

    Attributes:
        item: pattern of items, as in ``rules/adam/float64``.
        leaf: pattern of the paths of leaves, as in ``state/*/missing``; ``*`` also matches an item
            that is there only once, or fails only once.
        reason: why the numbers, or the words, are others.
    """

    item: str
    leaf: str
    reason: str


UNCOUNTED = "Entries that are not finite, or clipped, are no longer counted by default."
OPTIMUM = "Posterior says how far the optimum is and what the hazard is, in fields of their own."
FISHER = (
    "FisherOptimum puts no precision in the place of a curvature: its policy goes to the optimum."
)
ZERO = "A step where there is no force keeps the sign of its zero."
CAST = "The numbers of a transition are cast once, and not in every product: rounding in float32."
ORDER = "Derivatives are added up in another order: rounding."
GONE = "No longer among the names of the package; see the changelog."
WORDS = "An error says what would have to be declared."

INTENDED: tuple[Intended, ...] = (
    Intended("rules/*", "state/*missing", UNCOUNTED),
    Intended("rules/*", "state/*clipped", UNCOUNTED),
    Intended("jitted/*", "state/*missing", UNCOUNTED),
    Intended("jitted/*", "state/*clipped", UNCOUNTED),
    Intended("found in states/*", "*missing*", UNCOUNTED),
    Intended("found in states/*", "clipped/values/*", UNCOUNTED),
    Intended("bytes of states/*", "total", UNCOUNTED),
    Intended("bytes of states/*", "without missing", UNCOUNTED),
    Intended("signatures/rules.*", "count_missing", "Rules do not count what is missing."),
    Intended("signatures/beliefnav.*", "count_missing", UNCOUNTED),
    Intended("*", "*distance_mean*", OPTIMUM),
    Intended("*", "*distance_variance*", OPTIMUM),
    Intended("*", "*hazard", OPTIMUM),
    Intended("*FisherOptimum*", "*", FISHER),
    Intended("beliefs/UnknownNoise(Optimum)/*", "optimum/*", "A wrapper passes on what it holds."),
    Intended("*hazard_filter*", "*", FISHER),
    Intended("*wiener*", "update/*", ZERO),
    Intended("*ecant*/float32", "*", CAST),
    Intended("jitted/*ecant*", "*", CAST),
    Intended("log_likelihood/*", "slopes/*", ORDER),
    Intended("log_likelihood/*", "error", WORDS),
    Intended("explained/adabelief", "error", "The rules that are known stand in another order."),
    Intended("atlas", "rows", "Rows beside optax are built from the catalogue, in its order."),
    Intended("signatures/control.*", "*", GONE),
)
