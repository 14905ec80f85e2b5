r"""The numbers of a rule that is known, under noise of execution.

$$ \Delta\theta_t = u_t(\psi)\,(1 + \sigma z_t) + \tau z'_t + \text{rounding}, \qquad
   z, z' \sim N(0, 1), $$

with $u_t$ the step of the rule with the numbers $\psi$ on the gradients and parameters that were
recorded: where the noise took the parameters is known, so that steps are independent given $\psi$.
`fit_rule` finds the mode by Fisher scoring; the covariance and the evidence are Laplace's (MacKay,
"Bayesian interpolation", Neural Computation 4, 1992), and `sample_rule` draws from the same
posterior by NUTS (Hoffman and Gelman, JMLR 15, 2014) where they are in doubt.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from beliefnav.inference.learners.least_squares import minimise

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Draws", "Fit", "Start", "fit_rule", "fit_values", "sample_rule", "unconstrained"]

Build = Callable[[Mapping[str, Array]], optax.GradientTransformation]

NOISES = ("relative", "absolute")
FLAT = 1e3
"""Standard deviation of the log of a noise before anything was seen."""
_TO: dict[str, Callable[[Any], Array]] = {
    "real": jnp.asarray,
    "positive": jnp.exp,
    "memory": lambda x: -jnp.expm1(-x),
    "unit": jax.nn.sigmoid,
}
_FROM: dict[str, Callable[[Any], Array]] = {
    "real": jnp.asarray,
    "positive": jnp.log,
    "memory": lambda x: -jnp.log1p(-x),
    "unit": lambda x: jnp.log(x) - jnp.log1p(-x),
}


class Start(NamedTuple):
    """Where the fit of a number begins.

    Attributes:
        value: the number.
        transform: the scale on which it is fitted: ``"real"``,
            ``"positive"`` (its log), ``"memory"`` (the log of 1/(1 - b)) or ``"unit"`` (log odds).
        spread: standard deviation of its prior, a Gaussian around ``value`` on that scale. The
            default is flat; give one where the evidence of rules is compared, which is what the
            prior foretells of the recording.
    """

    value: float
    transform: str
    spread: float = FLAT


class Fit(NamedTuple):
    """The posterior of the numbers of a rule, on the scales of the fit.

    Attributes:
        position: the mode [number]: those of the rule in their order, then logs of the noises.
        covariance: [number, number].
        log_density: at the mode, up to a constant.
        converged: whether another step would gain less than 0.01 nats.
        log_evidence: of the rule, in nats: the log density of all displacements, with the numbers
            integrated out by Laplace's approximation. The difference between two rules on one
            recording, with the same noises, is the log of the Bayes factor.
    """

    position: Array
    covariance: Array
    log_density: Array
    converged: Array
    log_evidence: Array


class Draws(NamedTuple):
    """Draws from the posterior of the numbers of a rule.

    Attributes:
        posterior: the numbers of the rule, and ``relative_noise`` and ``absolute_noise`` as far as
            they are there, of dimensions (chain, draw).
        converged: whether chains agree, by the thresholds of `beliefnav.inference.Fit`, and none of
            their transitions diverged.
    """

    posterior: "xr.Dataset"
    converged: bool


class _Problem(NamedTuple):
    """What is fitted: ``moments`` of displacements, and where to begin."""

    moments: Callable[[Array], tuple[Array, Array]]
    begin: Array
    precision: Array


def _problem(
    build: Build,
    start: Mapping[str, Start],
    gradient: Array,
    displacement: Array,
    params: Array,
    rounding: Array | None,
    noise: Sequence[str],
) -> _Problem:
    if isinstance(noise, str) or not set(noise) <= set(NOISES):
        raise ValueError(
            f"Cannot fit the noise {noise!r}. This is because there are {NOISES}; give a sequence "
            "of these, as ('relative',), or ()."
        )
    if wrong := {n: s.transform for n, s in start.items() if s.transform not in _TO}:
        raise ValueError(
            f"Cannot fit on the scales {wrong}. This is because there are: {', '.join(_TO)}."
        )
    names, count = list(start), len(start)
    single = (jnp.finfo(jnp.float32).eps * jnp.abs(params)) ** 2 / 12
    size = jnp.sqrt(jnp.mean(displacement**2))
    variance = (single if rounding is None else rounding) + (
        jnp.finfo(displacement.dtype).eps * size
    ) ** 2

    def moments(position: Array) -> tuple[Array, Array]:
        rule: Any = build(_values(start, position))

        def step(state: Any, now: tuple[Array, Array]) -> tuple[Any, Array]:
            update, state = rule.update(now[0], state, now[1])
            return state, update

        mean = lax.scan(step, rule.init(params[0]), (gradient, params))[1]
        spread = dict(zip(noise, jnp.exp(2 * position[count:]), strict=True))
        total = variance + spread.get("relative", 0) * mean**2 + spread.get("absolute", 0)
        return mean, jnp.log(total)

    begin = [_FROM[start[n].transform](start[n].value) for n in names]
    begin += [jnp.log(0.3 * (size if n == "absolute" else 1.0)) for n in noise]
    position = jnp.stack([jnp.asarray(x, displacement.dtype) for x in begin])
    spreads = [start[n].spread for n in names] + [FLAT for _ in noise]
    return _Problem(moments, position, jnp.asarray(spreads, position.dtype) ** -2)


def fit_rule(
    build: Build,
    start: Mapping[str, Start],
    gradient: Array,
    displacement: Array,
    params: Array,
    rounding: Array | None = None,
    noise: Sequence[str] = NOISES,
) -> Fit:
    """Fit the numbers of a rule to a recording.

    All is traced, so that it runs under ``jit`` and, over many recordings, ``vmap``. Give arrays of
    float64: what distinguishes long memories is lost in float32.

    Args:
        build: numbers -> the rule, an optimizer of an array [param].
        start: number -> where its fit begins, and its prior.
        gradient: [step, param].
        displacement: [step, param].
        params: [step, param], before the step.
        rounding: variance of the rounding of a displacement [step, param]; that of float32 for
            these parameters by default.
        noise: which noises there are: ``"relative"``, a share of the step, ``"absolute"``, in the
            units of the parameters. The priors of their logs are flat, the same for all rules.

    Returns:
        Mode, covariance and evidence.

    Raises:
        ValueError: a noise or the scale of a number is none of those.
    """
    problem = _problem(build, start, gradient, displacement, params, rounding, noise)
    position, seen = problem.begin, jnp.ones_like(displacement)
    prior = problem.begin, problem.precision
    rule_alone = (jnp.arange(len(position)) < len(start)).astype(position.dtype)
    for free, num_steps in ((rule_alone, 20), (jnp.ones_like(rule_alone), 40)):
        found = minimise(problem.moments, displacement, seen, position, free, prior, num_steps)
        position = found.position
    step = jnp.linalg.solve(found.information, found.slope)
    constant = jnp.log(problem.precision).sum() - displacement.size * jnp.log(2 * jnp.pi)
    log_volume = constant - jnp.linalg.slogdet(found.information)[1]
    return Fit(
        position,
        jnp.linalg.inv(found.information),
        -found.potential,
        found.slope @ step < 0.02,
        log_volume / 2 - found.potential,
    )


def sample_rule(
    build: Build,
    start: Mapping[str, Start],
    gradient: Array,
    displacement: Array,
    params: Array,
    rounding: Array | None = None,
    noise: Sequence[str] = NOISES,
    *,
    key: Array,
    num_warmup: int = 300,
    num_samples: int = 500,
    num_chains: int = 4,
) -> Draws:
    """Draw the numbers of a rule from the posterior whose mode `fit_rule` finds, by NUTS.

    Chains begin around that mode, with its covariance for a mass matrix.

    Args:
        build: as of `fit_rule`, as are the others; give arrays of float64, inside
            ``jax.enable_x64(True)``.
        start: number -> where its fit begins, and its prior.
        gradient: [step, param].
        displacement: [step, param].
        params: [step, param].
        rounding: [step, param].
        noise: which noises there are.
        key: random key.
        num_warmup: adaptation steps of a chain.
        num_samples: draws of a chain.
        num_chains: number of chains; at least 2, for them to be compared.

    Returns:
        The draws, and whether to trust them.

    Raises:
        ValueError: as of `fit_rule`.
    """
    import xarray as xr
    from numpyro.infer import MCMC, NUTS

    from beliefnav.inference.fits import agreement, agrees

    given = gradient, displacement, params, rounding, noise
    problem, mode = _problem(build, start, *given), fit_rule(build, start, *given)

    def potential(position: Array) -> Array:
        mean, log_variance = problem.moments(position)
        error = (displacement - mean) ** 2 * jnp.exp(-log_variance) + log_variance
        return (error.sum() + (problem.precision * (position - problem.begin) ** 2).sum()) / 2

    near, key = jax.random.split(key)
    around = jax.random.normal(near, (num_chains, len(mode.position)), mode.position.dtype)
    kernel = NUTS(potential_fn=potential, inverse_mass_matrix=mode.covariance, dense_mass=True)
    chains = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    begin = mode.position + around @ jnp.linalg.cholesky(mode.covariance).T
    chains.run(key, init_params=begin, extra_fields=("diverging",))
    positions = jnp.moveaxis(chains.get_samples(group_by_chain=True), -1, 0)
    noises = zip(noise, jnp.exp(positions[len(start) :]), strict=True)
    drawn = _values(start, positions) | {f"{n}_noise": x for n, x in noises}
    posterior = xr.Dataset(
        {name: (("chain", "draw"), x) for name, x in drawn.items()},
        {"chain": range(num_chains), "draw": range(num_samples)},
    )
    tables = agreement(posterior)
    agree = [agrees({k: t[name] for k, t in tables.items()}) for name in posterior.data_vars]
    divergences = int(chains.get_extra_fields()["diverging"].sum())
    return Draws(posterior, all(map(bool, agree)) and not divergences)


def fit_values(fit: Fit, start: Mapping[str, Start]) -> dict[str, Array]:
    """The numbers of a rule at the mode, by name."""
    return _values(start, fit.position)


def _values(start: Mapping[str, Start], position: Array) -> dict[str, Array]:
    """The numbers of a rule, by name, from where they stand on their scales [number, ...]."""
    return {n: _TO[s.transform](position[i]) for i, (n, s) in enumerate(start.items())}


def unconstrained(value: float, transform: str) -> Array:
    """A number on the scale of its fit."""
    return _FROM[transform](value)
