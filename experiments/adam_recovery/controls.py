r"""What else would give the slopes, and what the theory says where nothing is assumed.

A slope of a step on a number of the generator has two factors: the slope of the believed $V$ on
that number, and the exponent of the policy in $V$. The second is what the policy is: a policy
$V^{-0.37}$ has the slope $-0.37$. Only the first can come out otherwise, and a mean of squares
without any belief has it too.

The theory has a root of the *curvature*. That $E[g^2]$ is curvature is an assumption, which the
streams of the first reading do not share: they have no curvature at all. What the theory says of
noise by itself is measured on a linear-quadratic Gaussian problem (`experiments.lqg`), in which
belief and policy are found together, by search: the rate at which the cheapest learner goes to
where it believes the optimum does not depend on the noise, and goes like the root of the curvature.
What does fall with the noise is the weight of a single gradient, because the filter averages over
more of them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from beliefnav import control
from experiments import lqg
from experiments.adam_recovery.slopes import FilterSlopes, Streams, slopes
from experiments.adam_recovery.streams import AUTOCORRELATION

EXPONENT = -0.37
"""Of a policy that no theory has."""
DECADES = 10.0 ** np.arange(-2, 3)
"""Noises, and curvatures, of the linear-quadratic problem."""
PROCESS, TIME_STEP = 0.01, 0.01


class Controls(NamedTuple):
    """Slopes over coordinates, and of the linear-quadratic problem.

    Attributes:
        other_exponent: of the step of a policy $V^{-0.37}$: reading -> slope.
        without_belief: of $V^{-1/2}$ with a $V$ by NumPy: the mean square of all gradients, and the
            regression of changes of the gradient on displacements: reading -> slope.
        shuffled: of the ballistic step, with the numbers of the generator in random order.
        feedback_on_noise: of the rate at which the cheapest learner goes to the optimum.
        gradient_on_noise: of the weight that it gives to a single gradient.
        gain_on_curvature: of its displacement per believed gradient.
        feedback: noise -> the share of the way to the believed optimum that it goes in a step.
    """

    other_exponent: dict[str, float]
    without_belief: dict[str, float]
    shuffled: dict[str, float]
    feedback_on_noise: float
    gradient_on_noise: float
    gain_on_curvature: float
    feedback: dict[float, float]


def strange() -> control.Policy:
    """A policy that divides by $V^{0.37}$."""
    return control.Policy(
        lambda posterior, params: jax.tree.map(
            lambda m, v: m * jnp.maximum(v, 0) ** EXPONENT,
            posterior.gradient_mean,
            posterior.curvature_mean,
        )
    )


def measure(read: FilterSlopes, streams: Streams, key: Array) -> Controls:
    """All controls of the two readings of the filters."""
    readings, policy = read._asdict(), strange()
    order = np.asarray(jax.random.permutation(key, len(read.variance.truth)))
    on_noise = [_taken_apart(curvature=1.0, noise=r) for r in tqdm(DECADES, desc="LQG, noise")]
    # The noise is in units of the squared curvature, so that all filters are the same.
    on_curvature = [_taken_apart(h, h**2) for h in tqdm(DECADES, desc="LQG, curvature")]
    feedback = np.array([parts.feedback for _, parts in on_noise])
    return Controls(
        other_exponent={name: reading.slope(policy) for name, reading in readings.items()},
        without_belief={
            "variance": slopes(-np.log(mean_square(streams)) / 2, read.variance.truth)[0],
            "curvature": slopes(-np.log(regressed(streams)) / 2, read.curvature.truth)[0],
        },
        shuffled={
            name: slopes(reading.log_gain(control.ballistic()), reading.truth[order])[0]
            for name, reading in readings.items()
        },
        feedback_on_noise=slopes(np.log(feedback), DECADES)[0],
        gradient_on_noise=slopes(np.log([a for a, _ in on_noise]), DECADES)[0],
        gain_on_curvature=slopes(
            np.log(
                [parts.feedback / h for h, (_, parts) in zip(DECADES, on_curvature, strict=True)]
            ),
            DECADES,
        )[0],
        feedback=dict(zip(DECADES.tolist(), feedback.tolist(), strict=True)),
    )


def _taken_apart(curvature: float, noise: float) -> tuple[float, lqg.Parts]:
    """The weight of a gradient of the cheapest learner, and its parts."""
    problem = lqg.Problem(curvature, noise, PROCESS, 1.0, TIME_STEP)
    found = lqg.cheapest(problem)
    return float(found[0]), lqg.taken_apart(found, problem, lqg.filter_gain(problem))


def mean_square(streams: Streams) -> np.ndarray:
    """The mean square of the gradients of the streams without curvature [param]."""
    return (np.asarray(streams.flat.gradient, float) ** 2).mean(0)


def regressed(streams: Streams) -> np.ndarray:
    """Slopes of changes of the gradient on the displacements before [param], in size."""
    y, moved = (np.asarray(x, float) for x in streams.curved)
    change = y[1:] - AUTOCORRELATION * y[:-1]
    return np.abs((change * moved[:-1]).sum(0) / (moved[:-1] ** 2).sum(0))
