r"""Known learning rules as assumptions: each is a belief and a policy, joined by `navigator`.

| rule | gradient | curvature | policy |
|---|---|---|---|
| `sgd` | as seen | none | myopic |
| ... with momentum | local level around 0 | none | myopic |
| ... with Nesterov's | random walk with a transient | none | myopic |
| `momentum` | diffuse local level | none | myopic |
| `sign_sgd`, `signum` | as seen; local level | square of the mean | sign |
| `lion` | random walk with a transient | square of the mean | sign, decay |
| `rmsprop`, `ballistic` | as seen | precision walk | ballistic |
| `adagrad` | as seen | accumulated squares | ballistic |
| `adam`, `adamw` | diffuse local level | precision walk | ballistic (decay) |
| `adamax` | diffuse local level | uniform walk | ballistic |
| `nadam`, `nadamw` | anticipated level | precision walk | ballistic (decay) |
| `wiener` | empirical-Bayes Wiener average | its second moment | ballistic |
| `secant` | secant landscape, its noise unknown | the same | cautious finite horizon |
| `l2_init` | as seen, with a known penalty | none | myopic |
| `adam_toward_start` | as `adam` | | ballistic, decay to the start |
| `resetting` | as `adam` | | an optimum that may be drawn anew |
| `countering` | as `adam` | | plans for weight decay |
| `natural_gradient` | local level | none | myopic, Fisher metric |
| `newton` | as seen | sensed | to the end, or exact hold |
| `sophia_like` | diffuse local level | sensed level | exact hold |
| `full_ballistic` | diffuse local level | Wishart walk | matrix ballistic |
| `shampoo` | diffuse local level | Kronecker walk | matrix ballistic |
| `muon` | anticipated level | one-sided, of the mean | polar |
| `von`, `ivon` | as seen; local level | sensed level | Newton, known prior |
| `bayesian_learning_rule` | as seen | sensed matrix level | matrix Newton, known prior |
| `family` | local level | precision walk | all between |
| `hazard_filter` | an optimum that may be drawn anew, its Fisher information read | | Newton |

Names and defaults of arguments are those of optax where optax has the rule. All are ordinary optax
optimizers; `beliefnav.posterior` reads what they believe. ``rules.adam.assumptions(...)`` is what
``rules.adam(...)`` is built from, and prints as a table (`beliefnav.explain` does so for optax's
rules too). ``python -m beliefnav.atlas`` compares them with independent implementations.

They keep what they believe, so that those that see the gradient as it is (`sgd`, `rmsprop`) hold
one tree more than in optax.

An entry of the gradient that is NaN or infinite is not observed. Its means stay (those of a belief
in "what was just seen" return to 0: no step), and one sample size for all entries is kept, as if it
had been seen: afterwards its bias correction is an approximation.
"""

from beliefnav.rules.adaptive import (
    adagrad,
    adam,
    adamax,
    adamw,
    ballistic,
    countering,
    nadam,
    nadamw,
    rmsprop,
    wiener,
)
from beliefnav.rules.descent import lion, momentum, sgd, sign_sgd, signum
from beliefnav.rules.geometry import full_ballistic, muon, natural_gradient, shampoo
from beliefnav.rules.interpolation import family
from beliefnav.rules.second_order import newton, secant, sophia_like
from beliefnav.rules.tasks import adam_toward_start, hazard_filter, l2_init, resetting
from beliefnav.rules.variational import bayesian_learning_rule, ivon, von

__all__ = [
    "adagrad",
    "adam",
    "adamax",
    "adam_toward_start",
    "adamw",
    "ballistic",
    "bayesian_learning_rule",
    "countering",
    "family",
    "full_ballistic",
    "hazard_filter",
    "ivon",
    "l2_init",
    "lion",
    "momentum",
    "muon",
    "nadam",
    "nadamw",
    "natural_gradient",
    "newton",
    "resetting",
    "rmsprop",
    "secant",
    "sgd",
    "shampoo",
    "sign_sgd",
    "signum",
    "sophia_like",
    "von",
    "wiener",
]
