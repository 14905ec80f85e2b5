"""How far a rule is from its peer."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from beliefnav.atlas.explaining import Wrapped
from beliefnav.atlas.problems import Problem, network, quadratic, trajectory
from beliefnav.atlas.table import EXACT, LIMIT, Row
from beliefnav.rules._rule import Assumptions, Fact

__all__ = ["Measurement", "assumptions_of", "inside", "measure"]

ORDER_TOLERANCE = 0.15
"""The problems hand the largest deviation over to each other along the way."""
SCALES = (1e-2, 1e-3, 1e-4)
"""The small parameter of a limit, at which the deviation is measured."""


class Measurement(NamedTuple):
    r"""A measured row of the atlas.

    Attributes:
        rule: its name.
        compared_with: the other implementation.
        deviation: the largest over the problems and their steps of $|\theta - \theta'|$, relative
            to how far the peer's $\theta'$ moved at most; of a limit, at its smallest parameter.
        verdict: what is claimed: ``exact``, ``limit``, ``approximate`` or ``no model known``.
        holds: whether this measurement bears it out: a rule deviates by no more than the bound of
            its row (in float32, an exact one by no more than 1e-4), a limit is approached at its
            order to within `ORDER_TOLERANCE`, and the others do differ.
        order: of a limit, the measured power of the small parameter; else ``None``.
        reason: why it is not exact, or of what it is the limit.
        assumptions: what the rule assumes.
    """

    rule: str
    compared_with: str
    deviation: float
    verdict: str
    holds: bool
    order: float | None
    reason: str
    assumptions: tuple[Fact, ...]


def measure(row: Row, problems: Sequence[Problem] | None = None) -> Measurement:
    r"""Run a rule and its peer on the same gradients, in the float that is in force.

    Args:
        row: what to compare.
        problems: what to compare on, first a quadratic; by default `problems.quadratic` and
            `problems.network` for 500 steps.

    Returns:
        The measurement; its deviation is NaN if one of them is lost.
    """
    problems = problems or (quadratic(500), network(500))

    @jax.jit
    def deviations(scales: Array) -> Array:
        each = [_deviations(row, problem, scales) for problem in problems]
        return jnp.max(jnp.stack(each[: row.problems]), axis=0)

    worst = np.asarray(deviations(jnp.asarray(SCALES)))
    order = None
    if row.verdict == LIMIT:
        order = float(np.polyfit(np.log(SCALES), np.log(worst), 1)[0])
    return Measurement(
        row.rule,
        row.compared_with,
        float(worst[-1]),
        row.verdict,
        _holds(row, float(worst[-1]), order),
        order,
        row.reason,
        assumptions_of(row, problems[0]).facts(),
    )


def _holds(row: Row, deviation: float, order: float | None) -> bool:
    """Whether a measurement bears the verdict of a row out."""
    double = jnp.result_type(float) == jnp.float64
    if row.verdict == EXACT:
        return deviation <= (row.bound if double else 1e-4)
    if row.order is not None and order is not None:
        return abs(order - row.order) < ORDER_TOLERANCE and deviation <= row.bound
    return (1e-10 if double else 1e-4) < deviation <= row.bound


def assumptions_of(row: Row, problem: Problem) -> Assumptions | Wrapped:
    """What a row says of its rule; of a limit, at the smallest parameter that is measured."""
    return row.ours(problem, SCALES[-1]) if row.verdict == LIMIT else row.ours(problem)


def inside(assumed: Assumptions | Wrapped | Any) -> Assumptions:
    """What the optimizer inside all wrappers assumes."""
    return inside(assumed.inner) if isinstance(assumed, Wrapped) else assumed


def _deviations(row: Row, problem: Problem, scales: Array) -> Array:
    """The deviation at every scale, or one."""

    def ours(*scale: Array) -> Array:
        optimizer = row.ours(problem, *scale).optimizer()
        return trajectory(problem, optimizer, row.sensor, row.read)

    sensor = row.peer_sensor or row.sensor
    theirs = trajectory(problem, row.peer(problem), sensor, row.peer_read)
    moved = jnp.max(jnp.linalg.norm(theirs, axis=-1))
    paths = jax.vmap(ours)(scales) if row.verdict == LIMIT else ours()[None]
    return jnp.max(jnp.linalg.norm(paths - theirs[None], axis=-1), axis=-1) / moved
