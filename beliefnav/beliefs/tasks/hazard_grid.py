"""A hazard that is not known: a prior over the probability that the task switches, on a grid."""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from beliefnav._checks import POSITIVE, UNIT_INTERVAL, Checked, is_concrete


class HazardGrid(Checked):
    r"""A prior over the hazard $p$, the probability per step that the task switches.

    $P(p = p_g) \propto w_g$. A filter updates the weights; where the hazard is on the grid, as it
    is for a fine one up to the spacing, nothing else is approximated.

    Attributes:
        hazards: $p_g$ in [0, 1], [grid].
        weights: $w_g > 0$ [grid], in any unit; equal if ``None``.

    Raises:
        ValueError: a belief is started and the grid is empty, not one-dimensional, outside [0, 1],
            or has weights of another shape or that are not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from beliefnav import beliefs
        >>> prior = beliefs.HazardGrid.beta(1.0, 50.0)
        >>> round(float(prior.hazards @ prior.weights), 3)  # 1 / 51, up to the spacing
        0.02
    """

    hazards: ArrayLike
    weights: ArrayLike | None = None

    @classmethod
    def beta(cls, switches: float, stays: float, size: int = 64) -> "HazardGrid":
        """The means of ``size`` parts of equal probability of a Beta distribution.

        Args:
            switches: the first parameter: as if so many switches had been seen.
            stays: the second: as if so many steps without one had been seen.
            size: of the grid.

        Returns:
            The grid.

        Raises:
            ValueError: a parameter is not positive, or ``size`` is less than 1.
        """
        from scipy import stats

        POSITIVE.check("HazardGrid.beta", "switches", switches)
        POSITIVE.check("HazardGrid.beta", "stays", stays)
        if size < 1:
            raise ValueError(f"HazardGrid.beta: size must be at least 1, got {size}.")
        edges = stats.beta.ppf(np.linspace(0, 1, size + 1), switches, stays)
        # The mean of a part: x times a Beta density is a Beta density with one more switch.
        mass = np.diff(stats.beta.cdf(edges, switches + 1, stays))
        mean = mass * size * switches / (switches + stays)
        mean = np.clip(mean, edges[:-1], edges[1:])  # where differences of masses near 1 are lost
        return cls(jnp.asarray(mean, jnp.result_type(float)), jnp.full(size, 1 / size))

    @classmethod
    def log_uniform(cls, low: float, high: float, size: int = 64) -> "HazardGrid":
        """Hazards whose logarithms are equally spaced from ``low`` to ``high``.

        Args:
            low: the lowest, above 0.
            high: the highest, up to 1.
            size: of the grid.

        Returns:
            The grid.

        Raises:
            ValueError: not 0 < ``low`` <= ``high`` <= 1, or ``size`` is less than 1.
        """
        if not 0 < low <= high <= 1 or size < 1:
            raise ValueError(
                "HazardGrid.log_uniform needs 0 < low <= high <= 1 and a size of at least 1, got "
                f"low={low!r}, high={high!r}, size={size!r}."
            )
        return cls(jnp.geomspace(low, high, size), jnp.full(size, 1 / size))


def on_grid(owner: str, hazard: ArrayLike | HazardGrid) -> tuple[Array, Array]:
    """Hazards [grid] and the logarithms of their probabilities; a known one is a grid of one point.

    Raises:
        ValueError: names the owner and what is wrong with the grid.
    """
    if not isinstance(hazard, HazardGrid):
        if jnp.ndim(hazard):
            raise ValueError(
                f"{owner}: the hazard is one number, since all parameters switch together, got "
                f"shape {jnp.shape(hazard)}. To learn it, give a beliefnav.beliefs.HazardGrid."
            )
        hazard = HazardGrid(
            np.reshape(hazard, 1) if is_concrete(hazard) else jnp.reshape(hazard, 1)
        )
    # Before they are arrays of jax, whose values are not known where a program is traced.
    for name, values, good, bounds in (
        ("hazards", hazard.hazards, lambda x: (x >= 0) & (x <= 1), UNIT_INTERVAL.description),
        ("weights", hazard.weights, lambda x: (x > 0) & np.isfinite(x), "positive and finite"),
    ):
        if values is not None and is_concrete(values) and not np.all(good(np.asarray(values))):
            raise ValueError(f"{owner}: {name} must be {bounds}, got {np.asarray(values)}.")
    hazards = jnp.asarray(hazard.hazards, jnp.result_type(float))
    weights = jnp.ones_like(hazards) if hazard.weights is None else jnp.asarray(hazard.weights)
    weights = weights.astype(hazards.dtype)
    if hazards.ndim != 1 or not hazards.size or weights.shape != hazards.shape:
        raise ValueError(
            f"{owner}: a HazardGrid has hazards [grid] and as many weights, got shapes "
            f"{hazards.shape} and {weights.shape}."
        )
    return hazards, jnp.log(weights / weights.sum())
