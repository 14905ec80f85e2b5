r"""Recover Adam's root from beliefs about simulated landscapes, and say what is assumed.

The step of a planner is $-\varphi(V) m$, where the planning gain $\varphi$ goes like $V^{-1/2}$ if
it looks far ahead (ballistic: the root in Adam), like $V^{-1}$ if it follows its plan to the end
(Newton), not at all if it looks nowhere (gradient descent), and in between as discount $\gamma$ and
time step $\Delta t$ say (`slopes`). These exponents hold by construction of the policies: a policy
$V^{-0.37}$ has the slope $-0.37$ (`controls`).

Claim: what is believed tracks what is true. The slope of $\log V$, over coordinates, on the
logarithm of the *generator's own* noise variance or curvature is 1. Streams come from the NumPyro
program of `models.landscape` (`streams`), and what is between them and $V$ is a filter, or NUTS
(`sampled`). It would be refuted by a belief that does not track what it is said to track. A mean of
squares without any belief tracks the variance too.

What makes Adam's root a root of the noise is the assumption that $E[y^2]$ is the curvature. It is
no result: the streams on which $E[y^2]$ is the variance have no curvature, the empirical Fisher
information is not the Hessian (Kunstner, Hennig and Balles), and where curvature and noise are told
apart, on a linear-quadratic Gaussian problem, the feedback of the cheapest learner does not depend
on the noise. Aitchison derives the same root without that assumption, from the motion of the other
parameters.

Two readings of $V$. In Adam's it is $E[y^2]$, and the slope is on the noise variance $R$. With a
signal of variance $P$ it is $R + P$: the local slope of one coordinate is $-\tfrac12 R/(R + P)$,
within 0.02 of $-\tfrac12$ up to $P/R = 0.04$ and no further. In the other $V$ is the curvature of a
secant belief. As the landscape comes to be fully observed, what the uncertainty contributes to the
secant's cautious plan, a slope of $-\tfrac14$ on the variance, must go, and $-\tfrac12$ on the
curvature remain. Adam's second moment becomes something else there: the mean square of the
gradient, which is proportional to the squared curvature.

Beyond the paper: where is the plan certainty-equivalent? Given the gradient where one stands, the
loss is linear in the curvature. So planning on $\varphi(E[V])$ is exactly optimal if the curvature
is known, however noisy the gradient, and also if nothing more will be learned, however uncertain
the curvature. In between it is not: `dual` solves a scalar problem by dynamic programming, and says
what it is worth to know that one will learn, and to probe. `means_and_variances` compares it with
$E[\varphi(V)]$ as a policy, on quadratics and on a network. Which of them wins is not claimed: what
came out is reported.

Reference:
    Kunstner, Hennig and Balles, "Limitations of the Empirical Fisher Approximation for Natural
    Gradient Descent", NeurIPS 2019, arXiv:1905.12558.
    Aitchison, "Bayesian filtering unifies adaptive and non-adaptive neural network optimization
    methods", NeurIPS 2020, arXiv:1807.07540.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import jax
import numpy as np
from jax import Array
from tqdm import tqdm

from experiments import report
from experiments.adam_recovery import controls, drawing, dual, means_and_variances, slopes
from experiments.adam_recovery.config import Config
from experiments.adam_recovery.results import Results, claims, metrics
from experiments.adam_recovery.sampled import read_samples

__all__ = ["Config", "run"]


def run(config: Config) -> report.Report:
    """Simulate, filter, sample, plan, solve, draw."""
    results = measure(config)
    drawing.draw(config.folder / "adam_recovery.png", results)
    drawing.draw_beyond(config.folder / "adam_recovery_beyond.png", results)
    return report.Report(claims(results), metrics(results))


def measure(config: Config) -> Results:
    """All parts of the experiment; on a CPU, NUTS in a process of its own."""
    keys = jax.random.split(jax.random.key(config.seed), 5)
    if jax.default_backend() != "cpu":
        return Results(sampled=read_samples(config, keys[3]), **_measure_rest(config, keys))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        sampled = pool.submit(read_samples, config, keys[3], progress_bar=False)
        rest = _measure_rest(config, keys)
        with tqdm(total=1, desc="NUTS") as bar:
            results = Results(sampled=sampled.result(), **rest)
            bar.update()
    return results


def _measure_rest(config: Config, keys: Array) -> dict[str, Any]:
    """The parts that need no sampling, by their names in `Results`."""
    size = config.num_params, config.num_steps
    ratios = 10.0 ** np.arange(-5, 3.5, 2 if config.quick else 0.5)
    noises = 10.0 ** np.arange(-8, 7, 7 if config.quick else 1)
    parts: dict[str, Any] = {}
    with tqdm(total=4, unit="part", desc="slopes") as bar:
        streams = slopes.simulate_both(keys[0], *size)
        parts["filtered"] = slopes.read_filters(streams)
        bar.update()
        parts["between"] = slopes.read_between(parts["filtered"])
        bar.update()
        parts["failure"] = slopes.read_ratios(keys[1], ratios, *size)
        bar.update()
        parts["observed"] = slopes.read_observed(keys[2], noises, *size)
        bar.update()
    parts["controls"] = controls.measure(parts["filtered"], streams, keys[0])
    parts["costs"] = means_and_variances.on_quadratics(keys[4], config.problems, quick=config.quick)
    parts["networks"] = means_and_variances.on_network(config)
    parts["solutions"] = dual.solve_all(
        config.grid,
        dual.DISPERSIONS[::3] if config.quick else dual.DISPERSIONS,
        dual.NOISES[::6] if config.quick else dual.NOISES,
    )
    parts["checks"] = dual.check(config.grid)
    return parts
