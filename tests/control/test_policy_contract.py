"""What every policy promises: it looks at nothing but what it says that it reads."""

import typing
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beliefnav import Objective, control
from beliefnav.beliefs import Posterior
from beliefnav.beliefs.contract import as_belief
from beliefnav.rules.catalogue import CATALOGUE

M = jnp.array([1.0, -2.0, 0.0])
DIAGONAL = Posterior(M, M**2 + 1, jnp.array([4.0, 0.25, -0.1]), M**2 + 2, M, M + 1, M**2, 0.01)
A = np.random.default_rng(0).normal(size=(3, 3))
MATRIX = DIAGONAL._replace(curvature_mean=jnp.asarray(A @ A.T + np.eye(3)))
PLAN = Objective(discount=0.5)

POLICIES: dict[str, tuple[Callable[[], control.Policy], Posterior]] = {
    "anticipating": (lambda: control.anticipating(lambda *_: (M, M)), DIAGONAL),
    "averaged": (lambda: control.averaged(control.horizon(PLAN)), DIAGONAL),
    "ballistic": (control.ballistic, DIAGONAL),
    "cautious": (lambda: control.cautious(control.horizon(PLAN)), DIAGONAL),
    "countering": (lambda: control.countering(0.1), DIAGONAL),
    "horizon": (lambda: control.horizon(PLAN), DIAGONAL),
    "matrix_ballistic": (control.matrix_ballistic, MATRIX),
    "matrix_horizon": (lambda: control.matrix_horizon(PLAN), MATRIX),
    "matrix_newton": (control.matrix_newton, MATRIX),
    "myopic": (control.myopic, DIAGONAL),
    "newton": (control.newton, DIAGONAL),
    "penalised": (lambda: control.penalised(control.ballistic(), 0.1), DIAGONAL),
    "polar": (control.polar, DIAGONAL),
    "resetting": (control.resetting, DIAGONAL),
    "sign": (control.sign, DIAGONAL),
    "to_optimum": (control.to_optimum, DIAGONAL),
}


def test_all_policies_are_here() -> None:
    made = {
        name
        for name in control.__all__
        if typing.get_type_hints(getattr(control, name)).get("return") is control.Policy
    }
    assert made == set(POLICIES)


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_steps_on_what_it_reads_alone(name: str) -> None:
    make, posterior = POLICIES[name]
    policy = make()
    if policy.reads is None:
        return
    kept = Posterior(**{field: posterior._asdict()[field] for field in policy.reads})
    places = (M + 3, M + 4) if policy.uses_start else (M + 3,)
    np.testing.assert_array_equal(policy.step(kept, *places), policy.step(posterior, *places))
    if policy.clipped is not None:
        np.testing.assert_array_equal(policy.clipped(kept, M + 3), policy.clipped(posterior, M + 3))


@pytest.mark.parametrize("name", ["secant", "hazard_filter"])
def test_a_filter_reads_what_it_is_asked_for(name: str) -> None:
    """The same numbers as in the whole posterior."""
    entry = CATALOGUE[name]
    filter_ = as_belief(entry.rule.assumptions(**entry.arguments).belief).filter()
    state = filter_.update(filter_.predict(filter_.init(M), M), 2 * M)
    whole = state.posterior()._asdict()
    for field, value in whole.items():
        got = filter_.posterior(state, (field,))._asdict()[field]
        assert (got is None) == (value is None)
        jax.tree.map(np.testing.assert_array_equal, got, value)
