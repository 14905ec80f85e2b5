r"""Ask recorded gradients which memory they have, in Adam's units, and train with it.

A network is trained with Adam, and raw gradients of a few coordinates of every
layer are recorded. Four state-space models are fitted to them by NUTS with the latent path
integrated out, per layer and stage of training (`models.gradient_noise`), and say which $\beta_1$
and $\beta_2$ the gradients ask for, with which uncertainty. The last fifth of each stage is held
out and predicted one step ahead. Then the networks are trained again with the implied memories.

Claims (beyond the paper): a memory that was learned predicts held-out gradients at least as well as
that of Adam's defaults, and at least as well as no memory; it would be refuted by a fitted model
that does worse.
That training with the implied memories helps is not claimed: what came out is reported.

An entry of a gradient that is exactly zero (an unused pixel, a unit that is off for the whole
batch) has no density under any of these models and counts as missing; coordinates where more than
a tenth is missing are left out. ``--stream FILE`` asks a recording of your own, see
`beliefnav.recording`; nothing is trained then. Coordinates are grouped by the array that they
belong to, and the recording is divided into stages of equal length.

Written are four figures, ``metrics.json``, the recorded streams, and one file of posteriors for
each stream and model. A fit whose chains do not agree is marked in ``metrics.json`` and
in the figure of memories.
"""

from experiments import report
from experiments.gradient_noise import drawing, results
from experiments.gradient_noise.beliefs import ask
from experiments.gradient_noise.config import STAGES, Config
from experiments.gradient_noise.streams import read, record
from experiments.gradient_noise.training import HIDDEN, train_again
from experiments.training import make_problem

__all__ = ["STAGES", "Config", "run"]


def run(config: Config) -> report.Report:
    """Record or read, fit, predict, train again, draw."""
    problems = {
        name: make_problem(name, hidden=HIDDEN, validation=0.1, folder=config.data_dir)
        for name in config.data
        if config.stream is None
    }
    streams = record(config, problems) if config.stream is None else read(config, config.stream)
    answers = ask(config, streams)
    retrained = {
        name: train_again(config, name, problems[name], results.settings(answer))
        for answer in answers
        if (name := answer.stream.name) in problems
    }
    drawing.draw(config, answers, retrained)
    claims = [claim for answer in answers for claim in results.claims(config, answer)]
    return report.Report(claims, results.metrics(answers, retrained))
