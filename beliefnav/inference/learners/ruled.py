r"""The numbers of a rule that is known, under noise of execution.

$$ \Delta\theta_t = u_t(\psi)\,(1 + \sigma z_t) + \tau z'_t + \text{rounding}, \qquad
   z, z' \sim N(0, 1), $$

with $u_t$ the step of the rule with the numbers $\psi$ on the gradients and parameters that were
recorded: where the noise took the parameters is known, so that steps are independent given $\psi$.
The mode is found by Fisher scoring, and the covariance is Laplace's.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from beliefnav.inference.learners.least_squares import minimise

__all__ = ["Fit", "Start", "fit_rule", "fit_values", "unconstrained"]

NOISES = ("relative", "absolute")
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
        transform: the scale on which it is fitted, and on which its prior is flat: ``"real"``,
            ``"positive"`` (its log), ``"memory"`` (the log of 1/(1 - b)) or ``"unit"`` (log odds).
    """

    value: float
    transform: str


class Fit(NamedTuple):
    """The posterior of the numbers of a rule, on the scales of the fit.

    Attributes:
        position: the mode [number]: those of the rule in their order, then logs of the noises.
        covariance: [number, number].
        log_density: at the mode, up to a constant.
        converged: whether another step would gain less than 0.01 nats.
    """

    position: Array
    covariance: Array
    log_density: Array
    converged: Array


def fit_rule(
    build: Callable[[Mapping[str, Array]], optax.GradientTransformation],
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
        start: number -> where its fit begins.
        gradient: [step, param].
        displacement: [step, param].
        params: [step, param], before the step.
        rounding: variance of the rounding of a displacement [step, param]; that of float32 for
            these parameters by default.
        noise: which noises there are: ``"relative"``, a share of the step, ``"absolute"``, in the
            units of the parameters.

    Returns:
        Mode and covariance.
    """
    names, count = list(start), len(start)
    if rounding is None:
        rounding = (jnp.finfo(jnp.float32).eps * jnp.abs(params)) ** 2 / 12
    size = jnp.sqrt(jnp.mean(displacement**2))
    variance = rounding + (jnp.finfo(displacement.dtype).eps * size) ** 2

    def moments(position: Array) -> tuple[Array, Array]:
        numbers = {n: _TO[start[n].transform](position[i]) for i, n in enumerate(names)}
        rule = build(numbers)

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
    dim, seen = len(begin), jnp.ones_like(displacement)
    flat = position, jnp.full(dim, 1e-6, position.dtype)
    rule_alone = (jnp.arange(dim) < count).astype(position.dtype)
    for free, num_steps in ((rule_alone, 20), (jnp.ones_like(rule_alone), 40)):
        found = minimise(moments, displacement, seen, position, free, flat, num_steps)
        position = found.position
    step = jnp.linalg.solve(found.information, found.slope)
    return Fit(
        position, jnp.linalg.inv(found.information), -found.potential, found.slope @ step < 0.02
    )


def fit_values(fit: Fit, start: Mapping[str, Start]) -> dict[str, Array]:
    """The numbers of a rule at the mode, by name."""
    return {n: _TO[s.transform](fit.position[i]) for i, (n, s) in enumerate(start.items())}


def unconstrained(value: float, transform: str) -> Array:
    """A number on the scale of its fit."""
    return _FROM[transform](value)
