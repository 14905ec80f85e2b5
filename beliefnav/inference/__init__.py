r"""Learn the hyper-parameters of a belief from recorded streams.

A prior is a NumPyro program that returns a belief; with a recorded stream it makes a target; a
sampler draws from it. The latent path is integrated out, exactly, by the belief's own filter, so
that what is sampled are the few hyper-parameters.

Example:
    Which memory does this stream ask for? Simulate one, and find its correlation again.

    >>> import jax, numpyro
    >>> from numpyro import distributions as dist
    >>> from beliefnav import beliefs, inference
    >>> from beliefnav.recording import from_arrays
    >>>
    >>> def prior():
    ...     correlation = numpyro.sample("correlation", dist.Uniform(0, 1))
    ...     ratio = numpyro.sample("signal_to_noise", dist.LogNormal(0, 2))
    ...     process = ratio * (1 - correlation**2)
    ...     return beliefs.OrnsteinUhlenbeck(correlation, process, noise_variance=1.0)
    >>>
    >>> truth = beliefs.OrnsteinUhlenbeck(0.9, process_variance=1.0, noise_variance=1.0)
    >>> _, recording = inference.simulate(lambda: truth, key=jax.random.key(0), num_steps=200)
    >>> target = inference.target(prior, from_arrays(recording.gradient))
    >>> fit = inference.laplace(target, key=jax.random.key(1))  # or numpyro_nuts, blackjax_nuts
    >>> low, high = fit.posterior["correlation"].quantile([0.05, 0.95])
    >>> bool(low < 0.9 < high)
    True

    The mode alone, and the groups that a fit is written as:

    >>> mode = inference.map_estimate(target, key=jax.random.key(1))
    >>> bool(0 < mode.values["correlation"] < 1)
    True
    >>> sorted(inference.to_groups(fit))[:3]
    ['log_likelihood', 'observed_data', 'posterior']

    `to_arviz` opens a fit in arviz; `map_draws` applies anything to the belief of every draw. A
    hierarchy over coordinates is a prior with plates: its belief then has hyper-parameters of the
    shape of an observation. ``target(..., separate="param")`` takes coordinates apart instead.
"""

from beliefnav.inference.fits import Fit, map_draws, predict, summary, to_arviz, to_groups
from beliefnav.inference.modes import laplace, map_estimate
from beliefnav.inference.sampling import blackjax_nuts, numpyro_nuts
from beliefnav.inference.targets import MIN_STEPS, Target, informative, simulate, target

__all__ = [
    "MIN_STEPS",
    "Fit",
    "Target",
    "blackjax_nuts",
    "informative",
    "laplace",
    "map_draws",
    "map_estimate",
    "numpyro_nuts",
    "predict",
    "simulate",
    "summary",
    "target",
    "to_arviz",
    "to_groups",
]
