"""The parts of ``inverse`` about a drift that is learned."""

from pathlib import Path

import numpy as np
import pytest
from scipy import integrate

from experiments.inverse import decaying, rotation


def test_where_controllers_rest_is_where_an_integrator_of_their_motion_ends() -> None:
    """Of the one that ignores; the one that knows stands where standing still costs least."""
    theory = rotation.equilibria()
    np.testing.assert_allclose(theory["known"], [0, -1 / 6], atol=1e-12)
    np.testing.assert_allclose(theory["ignored"], [0.2612, -0.1306], atol=5e-5)
    h, minimum, q = np.array(rotation.CURVATURES), np.array(rotation.MINIMUM), rotation.FREQUENCY

    def motion(_: float, x: np.ndarray) -> np.ndarray:
        return q * np.array([-x[1], x[0]]) - np.sqrt(h) * (x - minimum)

    ended = integrate.solve_ivp(motion, (0, 40), rotation.START, rtol=1e-9, atol=1e-12).y[:, -1]
    np.testing.assert_allclose(theory["ignored"], ended, atol=1e-8)

    def cost(x: np.ndarray) -> float:
        return float(q**2 * x @ x + h @ (x - minimum) ** 2) / 2

    steps = 1e-3 * np.array([[1, 0], [-1, 0], [0, 1], [0, -1.0]])
    assert min(cost(theory["known"] + step) for step in steps) > cost(theory["known"])


@pytest.mark.slow
@pytest.mark.usefixtures("rank_promotion")
def test_a_rotation_is_learned_and_the_trap_is_left(tmp_path: Path) -> None:
    found = rotation.measured(rotation.QUICK, 0)
    assert [str(claim) for claim in rotation.claims(found) if not claim.holds] == []
    # The belief is as wrong as it says: three deviations of single seeds, in all entries.
    off = np.subtract(found["matrix"]["mean"], found["matrix"]["true"])
    error = np.divide(found["matrix"]["deviation"], np.sqrt(rotation.QUICK.seeds))
    assert (np.abs(off) < 3 * error).all()
    ratio = np.divide(found["matrix"]["spread"], found["matrix"]["deviation"])
    assert (ratio > 0.5).all() and (ratio < 2).all()
    rotation.draw(tmp_path / "rotation.png", found)
    assert (tmp_path / "rotation.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.usefixtures("rank_promotion")
def test_a_decay_of_weights_is_learned_and_countered(tmp_path: Path) -> None:
    found = decaying.measured(decaying.QUICK, 0)
    assert [str(claim) for claim in decaying.claims(found) if not claim.holds] == []
    decaying.draw(tmp_path / "decaying.png", found)
    assert (tmp_path / "decaying.png").read_bytes().startswith(b"\x89PNG")
