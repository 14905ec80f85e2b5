r"""Switch tasks on a quadratic loss, and see weights being reset without a rule that says so.

The last claim of the paper, in a testbed where everything can be checked: the learner gets a prior
over optima, a hazard at which tasks switch, noise, and the objective. That weights fall back toward
the prior mean is found in the first part by searches that have a cost and no such rule; the beliefs
and policies of the other parts are the library's, where the formula is written out.

1. *Recovery.* The optimal policy aims at $\mu_0 + w (m - \mu_0)$ at a rate $r$, with
   $w = (\gamma + r)/(\gamma + r + \lambda)$. A search over all linear policies of a known optimum
   for the cheapest one, by the exact expected discounted cost, finds the same $r$, the same pull
   $1 - w$, and that it points at $\mu_0$. Where the optimum is read through noise, a search over
   linear recursions with a memory finds belief and policy together, and in them the same $w$
   (`inferring`).
2. *Tracking.* Bayesian online change-point detection (BOCPD), which keeps one Gaussian for every
   time that may have passed since the last switch, beats the mixture of two hypotheses kept as one
   Gaussian, which beats the best linear filter,
   that of an Ornstein-Uhlenbeck (OU) optimum, which beats a belief that never forgets. The best
   linear filter assumes the true hazard; where the hazard is not known it is learned.
3. *Navigation.* Weights follow these beliefs through switches. What was learned of a weight is
   given up when others say that the task has switched: by $1 - (1 - \pi) w$ in all, $\pi$ being
   the probability of a switch, and so by more where the loss is flatter. With two hypotheses that
   is one formula coded twice; the exact filter could have differed. Without switches nothing is
   dropped.
4. *Inference.* NUTS on the NumPyro model, with all switches integrated out, recovers the hazard and
   the spread of optima from a recorded stream.

It would be refuted by a search that finds another policy, another order of the beliefs, a reset
fraction off the line, or intervals that miss the truth too often.
"""

from experiments import report
from experiments.task_switch import (
    drawing,
    hyperparameters,
    inferring,
    navigation,
    recovery,
    tracking,
)
from experiments.task_switch.config import Config

__all__ = ["Config", "run"]


def run(config: Config) -> report.Report:
    """Search, track, navigate, infer, draw."""
    found = recovery.recover(config)
    together = inferring.search(config)
    tracked = tracking.track(config)
    followed = navigation.navigate(config)
    inferred = hyperparameters.infer(config)
    drawing.draw(config, found, together, tracked, followed, inferred)
    claims = [
        *recovery.claims(found),
        *inferring.claims(together),
        *tracking.claims(config, tracked),
        *navigation.claims(config, followed),
        *hyperparameters.claims(inferred),
    ]
    results = {
        **recovery.metrics(found),
        **inferring.metrics(together),
        **tracking.metrics(tracked),
        **navigation.metrics(followed),
        **hyperparameters.metrics(inferred),
    }
    return report.Report(claims, results)
