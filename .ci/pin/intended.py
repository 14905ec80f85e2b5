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
TO_THE_OPTIMUM = (
    "The way to the optimum is the step itself, and no quotient of two means: rounding."
)
RECORDED = "A recording holds what FisherOptimum says: no gradient and no curvature."
APART = "Displacements are given, and not observed: they stand in constant_data."
VERDICTS = "Whether a fit converged stands in the attributes of its statistics."
READS = "A policy says what it reads of a posterior."
NEW = "The policy that goes to the believed optimum, which `hazard_filter` had inside."
WIDER = "A mean over entries is taken in the dtype of the state: rounding in float32."
GONE = "No longer among the names of the package; see the changelog."
SWITCHES = "What is known of a task is said: what it keeps, when it begins, how long a batch is."
WORDS = "An error says what would have to be declared."

ROUNDED_SECANT = {
    "rules/secant/float32": ("state/*/belief/*", "update/*"),
    "rules/masked secant/float32": ("state/*/belief/*", "update/*"),
    **{
        f"beliefs/{belief}/float32": ("info/*", "posterior/*", "state/*", "noise_variance/*")
        for belief in ("UnknownNoise(Secant)", "shared(UnknownNoise(Secant))")
    },
    **{
        f"beliefs/{belief}/float32": ("info/*", "posterior/*", "state/*")
        for belief in ("Secant", "positive(Secant)", "positive(UnknownNoise(Secant))")
    },
}
"""Item -> leaves; the same items in float64 agree in every byte."""
FILTERED = {
    **{
        f"rules/{name}": ("state/*/belief/*", "state/*/previous_params/*", "update/*")
        for name in (
            "hazard_filter/float64",
            "hazard_filter/float32",
            "hazard_filter, prior/float64",
            "hazard_filter, examples/float64",
            "masked hazard_filter/float64",
            "masked hazard_filter/float32",
        )
    },
    "found in states/hazard_filter": ("belief/values/*", "previous_params/values/*"),
    "sampled parameters/hazard_filter": ("pair/*",),
    "recordings of rules/hazard_filter, examples": ("update/*",),
    "atlas/hazard_filter = mean and variance, written out": ("deviation",),
}
SILENT = (
    *(f"posteriors/{n}" for n in ("hazard_filter", "hazard_filter, prior")),
    *(f"posteriors/{n}" for n in ("hazard_filter, examples", "masked hazard_filter")),
    *(
        f"beliefs/FisherOptimum{kind}"
        for kind in ("/float64", "/float32", ", read/float64", ", spread of the start/float64")
    ),
    "filter_recording/FisherOptimum/sequential",
    "forecast/FisherOptimum",
    "filter_chunks/FisherOptimum",
)
"""Items in which FisherOptimum no longer says a gradient and a curvature."""
NO_LONGER_PUBLIC = (
    *("Anticipation", "DiagonalLQPolicy", "Followed", "LQPolicy", "LQStatus", "LeastActionPath"),
    *("MatrixAnticipation", "MatrixPlanningGain", "MultiStart", "Navigation", "PlanningGain"),
    *("QuadraticValue", "diagonal_lq_policy", "discounted_average", "local_quadratic"),
    *("matrix_anticipation", "matrix_planning_gain", "matrix_resetting", "navigate"),
    *("polar_factor", "symmetric_function", "symmetric_power"),
)

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
    Intended("beliefs/UnknownNoise(Optimum)/*", "optimum/*", "A wrapper passes on what it holds."),
    Intended("*wiener*", "update/*", ZERO),
    Intended("log_likelihood/*", "slopes/*", ORDER),
    Intended("log_likelihood/*", "error", WORDS),
    Intended("explained/adabelief", "error", "The rules that are known stand in another order."),
    Intended("atlas", "rows", "Rows beside optax are built from the catalogue, in its order."),
    *(Intended(item, leaf, CAST) for item, leaves in ROUNDED_SECANT.items() for leaf in leaves),
    *(Intended(item, leaf, TO_THE_OPTIMUM) for item, leaves in FILTERED.items() for leaf in leaves),
    *(
        Intended(item, f"*{mean}*", FISHER)
        for item in SILENT
        for mean in ("gradient_mean", "curvature_mean")
    ),
    Intended("recordings of rules/hazard_filter, examples", "dataset*", RECORDED),
    Intended("recordings of rules/hazard_filter, examples", "groups*", RECORDED),
    *(Intended(f"signatures/control.{name}", "*", GONE) for name in NO_LONGER_PUBLIC),
    Intended("recordings of rules/*", "groups/constant_data/*", APART),
    Intended("recordings of rules/*", "groups/observed_data/*", APART),
    Intended("laplace", "sample_stats/attrs/*", VERDICTS),
    Intended("numpyro_nuts", "sample_stats/attrs/*", VERDICTS),
    Intended("signatures/control.Policy", "reads", READS),
    Intended("signatures/rules.adam_toward_start", "eps_root", "To differentiate through steps."),
    Intended("signatures/beliefs.sensed", "required", "Newton's method asks for its curvature."),
    Intended("signatures/wrappers.two_hypothesis", "value_fn", "Some hosts hand over no loss."),
    Intended("signatures/wrappers.two_hypothesis", "keep_state", SWITCHES),
    Intended("signatures/wrappers.two_hypothesis", "restart_schedule", SWITCHES),
    Intended("signatures/beliefs.Filter", "anew", SWITCHES),
    Intended("signatures/beliefs.Filter", "examples", SWITCHES),
    Intended("signatures/beliefnav.sample_params", "scale", "The spread of a path is drawn from."),
    Intended("beliefs/FisherOptimum/float32", "state/*/surprise", WIDER),
    Intended("signatures/control.to_optimum", "*", NEW),
)
