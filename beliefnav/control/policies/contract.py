"""What a policy is, and what it says that it assumes."""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from jax.typing import ArrayLike

from beliefnav.beliefs import Posterior

__all__ = ["MEANS", "Plan", "Policy", "required"]

PyTree = Any

MEANS = ("gradient_mean", "curvature_mean")
"""What a policy that plans as if it were certain reads."""


class Plan(NamedTuple):
    r"""What a policy assumes, as numbers to be read (`beliefnav.explain`) and not to be stepped on.

    Attributes:
        discount: $\gamma$ per ``time_step``; infinite where myopic. ``None``: the step does not
            depend on it.
        hold: the time for which a plan is followed before it is remade, in time steps: 0 where the
            plan is remade continuously, infinite where the believed optimum is jumped to.
        metric: $G$, in words.
        floor: $\epsilon_r$, added to the curvature.
        drift: what moves the parameters and is planned for, in words.
        curvature: what is read as curvature, in words, where that is not the belief's.
        remarks: sentences on what else is assumed.
        approximations: sentences on what does not follow from the objective.
    """

    discount: ArrayLike | None
    hold: ArrayLike = 0.0
    metric: str = "identity"
    floor: ArrayLike = 0.0
    drift: str = ""
    curvature: str = ""
    remarks: tuple[str, ...] = ()
    approximations: tuple[str, ...] = ()


class Policy(NamedTuple):
    """A map from a posterior to a direction.

    Attributes:
        step: ``(posterior, params) -> direction``, a tree like the parameters.
        clipped: ``(posterior, params) -> mask``, True where the curvature had to be clipped before
            ``step`` could use it; ``None`` if it never has to be. Optimizers count it on request.
        plan: what it assumes, to be read; ``None`` if nobody said.
        uses_start: ``step`` takes the initial parameters as a third argument; the optimizer then
            keeps them.
        reads: the fields of the posterior that ``step`` and ``clipped`` look at, so that an
            optimizer need not compute the others; ``None``: any.

    Example:
        Descend, but by less than 1 in every entry, and say what that assumes.

        >>> import math, jax, jax.numpy as jnp
        >>> from beliefnav import Posterior, control
        >>> bounded = control.Policy(
        ...     lambda posterior, params: jax.tree.map(jnp.tanh, posterior.gradient_mean),
        ...     plan=control.Plan(math.inf, approximations=("Steps are bounded by 1.",)),
        ... )
        >>> bounded.step(Posterior(gradient_mean=jnp.array([0.0, 30.0])), None).tolist()
        [0.0, 1.0]
    """

    step: Callable[..., PyTree]
    clipped: Callable[[Posterior, PyTree], PyTree] | None = None
    plan: Plan | None = None
    uses_start: bool = False
    reads: Collection[str] | None = None


def required(posterior: Posterior, field: str, policy: str) -> PyTree:
    """A field of the posterior that a policy cannot do without."""
    value = posterior._asdict()[field]
    if value is None:
        raise ValueError(
            f"Cannot use control.{policy} with a belief that has no {field}. This is because its "
            f"step depends on it; join one in with beliefs.independent."
        )
    return value
