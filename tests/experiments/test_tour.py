"""The tour runs, and the numbers that its text states are those that it computes."""

import re
import runpy
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from beliefnav import posterior

TOUR = Path(__file__).parents[2] / "experiments" / "tour.py"
NUMBER = r"(-?\d[\d,]*(?:\.\d+)?)"


def stated(words: str) -> list[float]:
    """The numbers of the text in the places of a sentence that are marked with #."""
    text = re.sub(r"\n# ?", " ", TOUR.read_text())
    pattern = NUMBER.join(map(re.escape, words.split("#"))).replace(r"\ ", r"\s+")
    found = re.search(pattern, text)
    assert found, f"The tour does not say: {words}"
    return [float(number.replace(",", "")) for number in found.groups()]


@pytest.fixture(scope="module")
def tour() -> dict[str, Any]:
    return runpy.run_path(str(TOUR))


def test_descent_is_limited_by_the_steepest_direction(tour: dict[str, Any]) -> None:
    said, without_noise = stated("# of its way is left after 200 steps"), stated("which is #)")
    # To the digits that are printed: half a unit of the last one.
    np.testing.assert_allclose(tour["descent_path"][-1, 0], said, atol=0.005)
    np.testing.assert_allclose(0.99**200, without_noise, atol=0.005)
    path, _ = tour["train"](optax.sgd(0.1))
    np.testing.assert_allclose(tour["descent_path"], path, atol=1e-6)


def test_adam_is_equally_fast_and_takes_squares_for_curvature(tour: dict[str, Any]) -> None:
    # Float32 rounding of optax's 1 - b2**t, a relative 5e-5 at the first step.
    np.testing.assert_allclose(tour["adam_path"], tour["peer_path"], atol=1e-4)
    assert [tour["steps_until_near"](tour["adam_path"])] == stated(
        "of the minimum after # steps. But"
    )
    true, believed = stated(
        "is # times as curved as the flattest one; Adam believes that it is # times"
    )
    curvature = tour["adam_belief"].curvature_mean
    np.testing.assert_allclose(tour["CURVATURE"][2] / tour["CURVATURE"][0], true)
    np.testing.assert_allclose(curvature[2] / curvature[0], believed, rtol=0.01)


def test_the_secant_knows_the_curvature_and_how_well(tour: dict[str, Any]) -> None:
    mean, deviation = np.array(tour["mean"]), np.array(tour["deviation"])
    said = stated("how sure it is: # ± # for #, # ± # for #, and # ± # for #")
    np.testing.assert_allclose(mean, said[::3], atol=5e-4)
    np.testing.assert_allclose(deviation, said[1::3], atol=5e-4)
    np.testing.assert_allclose(tour["CURVATURE"], said[2::3])
    # The truth is where the belief says: within 2.5 of its standard deviations.
    assert (abs(mean - tour["CURVATURE"]) < 2.5 * deviation).all()
    early = tour["early_mean"][0], tour["early_deviation"][0]
    np.testing.assert_allclose(early, stated("is believed to be # ± #."), atol=5e-4)
    steps = tour["steps_until_near"](tour["secant_path"])
    assert [steps] == stated("of the minimum after # steps. The belief now")


def test_the_secant_is_as_sure_as_it_may_be(tour: dict[str, Any]) -> None:
    """Over 200 seeds, of the 90 % intervals after 200 steps."""
    optimizer, curvature = tour["learner"], tour["CURVATURE"]

    def one(noise: jax.Array) -> Any:
        def step(carry: Any, e: jax.Array) -> tuple[Any, None]:
            params, state = carry
            updates, state = optimizer.update(curvature * params + e, state, params)
            return (optax.apply_updates(params, updates), state), None

        start = jnp.ones(3)
        return posterior(jax.lax.scan(step, (start, optimizer.init(start)), noise)[0])

    noise = tour["NOISE_VARIANCE"] ** 0.5 * jax.random.normal(jax.random.key(1), (200, 200, 3))
    read = jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(noise))
    half = stats.norm.ppf(0.95) * np.sqrt(read.curvature_variance)
    shares = np.mean(np.abs(read.curvature_mean - np.asarray(curvature)) < half, 0)
    # The standard error of a share of 0.9 among 200 is 0.02.
    assert np.all((0.85 <= shares) & (shares <= 0.95)), shares


def test_newton_takes_the_fewest_steps(tour: dict[str, Any]) -> None:
    near = tour["steps_until_near"]
    assert near(tour["descent_path"]) is None
    assert [near(tour["newton_path"])] == stated(
        "gradients alone. All directions are within 0.1 of the minimum after # steps."
    )
    assert near(tour["newton_path"]) < near(tour["secant_path"]) < near(tour["adam_path"])
