r"""Known learning rules as assumptions: each is a belief and a policy, joined by `navigator`.

| rule | gradient | curvature | policy | trees |
|---|---|---|---|---|
| `sgd` | as seen; with momentum, a level that drifts | none | myopic | 1 |
| `momentum` | diffuse local level | none | myopic | 1 |
| `sign_sgd` | as seen | square of the mean | sign | 1 |
| `signum` | diffuse local level | square of the mean | sign | 1 |
| `lion` | random walk with a transient | square of the mean | sign, decay | 2 |
| `rmsprop` | as seen | precision walk | ballistic | 2 |
| `ballistic` | as seen | precision walk | ballistic | 2 |
| `adagrad` | as seen | accumulated squares | ballistic | 2 |
| `adam` | diffuse local level | precision walk | ballistic | 2 |
| `adamw` | diffuse local level | precision walk | ballistic, decay | 2 |
| `adamax` | diffuse local level | uniform walk | ballistic | 2 |
| `nadam` | anticipated level | precision walk | ballistic | 3 |
| `nadamw` | anticipated level | precision walk | ballistic, decay | 3 |
| `wiener` | empirical-Bayes Wiener average | its second moment | ballistic | 2 |
| `secant` | secant landscape, its noise unknown | the same | cautious finite horizon | 7 |
| `l2_init` | as seen, with a known penalty | none | myopic | 2 |
| `adam_toward_start` | as `adam` | as `adam` | ballistic, decay to the start | 3 |
| `resetting` | as `adam` | as `adam` | an optimum that may be drawn anew | 3 |
| `countering` | as `adam` | as `adam` | plans for weight decay | 2 |
| `natural_gradient` | local level | none | myopic, Fisher metric | 1 |
| `newton` | as seen | sensed | to the end, or exact hold | 1 |
| `sophia_like` | diffuse local level | sensed level | exact hold | 2 |
| `full_ballistic` | diffuse local level | Wishart walk | matrix ballistic | 1 |
| `shampoo` | diffuse local level | Kronecker walk | matrix ballistic | 1 |
| `muon` | anticipated level | one-sided, of the mean | polar | 2 |
| `von` | as seen | sensed level | Newton, known prior | 2 |
| `ivon` | local level | sensed level | Newton, known prior | 2 |
| `bayesian_learning_rule` | as seen | sensed matrix level | Newton, known prior | 1 |
| `family` | local level | precision walk | all between | 2 |
| `hazard_filter` | an optimum that may be drawn anew | its Fisher information | Newton | 4 |
| `learning_rate_free` | as `adam` | as `adam` | ballistic, as far as is believed; averaged | 5 |

The last column is memory: trees of the shape of the parameters in the state, beside scalars and
matrices of curvature. Rules keep what they believe, so that those that see the gradient as it is
hold one tree more than in optax.

Names and defaults of arguments are those of optax where optax has the rule. All are ordinary optax
optimizers; `beliefnav.posterior` reads what they believe. ``rules.adam.assumptions(...)`` is what
``rules.adam(...)`` is built from, and prints as a table (`beliefnav.explain` does so for optax's
rules too); ``rules.adam.ranges`` says where its arguments lie. ``python -m beliefnav.atlas``
compares them with other implementations, and `beliefnav.rules.catalogue` lists them for
programs.

An entry of the gradient that is NaN or infinite, or whose square is (in float32 an entry beyond
1.8e19), is not observed. Its means stay (those of a belief in "what was just seen" return to 0: no
step), and one sample size for all entries is kept, as if it had been seen: afterwards its bias
correction is an approximation. Such entries are not counted, unless
``rules.adam.assumptions(...).optimizer(count_missing=True)`` is asked to.
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
from beliefnav.rules.free import learning_rate_free
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
    "learning_rate_free",
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
