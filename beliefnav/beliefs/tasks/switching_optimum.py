r"""Switching optimum: tasks follow one another, and each has an optimum of its own.

The latent state is the optimum $\theta^*_t$ of the present task. Before every observation but the
first the task switches, for all parameters at once, with probability $p$, the hazard; a new task
has an optimum drawn around a mean near the initial parameters $\theta_0$:

$$ s_t \sim \mathrm{Bernoulli}(p), \qquad
   \theta^*_t = \begin{cases} N(\theta_0 + \mu, v_0) & s_t = 1 \\
   \theta^*_{t-1} & s_t = 0 \end{cases}, \qquad
   y_t = h (\theta_t - \theta^*_t) + N(0, R). $$

Tasks have geometric lengths of mean $1/p$. When a task began is a discrete unknown, so that the
exact posterior is a mixture of Gaussians, one for every run length: `beliefnav.beliefs.RunLengths`,
with `beliefnav.beliefs.TwoHypotheses` and `beliefnav.beliefs.RunLengthReset` as approximations of
one Gaussian. The best linear filter is that of the Ornstein-Uhlenbeck optimum with the same mean
and autocovariance, `SwitchingOptimum.linear`.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from beliefnav._checks import FINITE, POSITIVE, UNIT_INTERVAL, Checked
from beliefnav.beliefs import _program
from beliefnav.beliefs._program import Stream
from beliefnav.beliefs.landscape.optimum import Optimum
from beliefnav.beliefs.tasks.hazard_grid import HazardGrid, on_grid

__all__ = ["SwitchingOptimum"]

PyTree = Any


class SwitchingOptimum(Checked):
    r"""Switching optimum (equations in the module docstring).

    All but the hazard may be a number, an array that broadcasts to every parameter array, or a tree
    like the parameters.

    Attributes:
        curvature: $h$, known.
        noise_variance: $R > 0$, in units of the squared gradient.
        prior_variance: $v_0 > 0$, in units of the squared parameter.
        hazard: $p$ in [0, 1], the probability of a switch per step; or a `HazardGrid`, to learn it.
        prior_mean: $\mu$, relative to the initial parameters.

    Raises:
        ValueError: a number is out of its range, as far as it is known; the error names it.

    Example:
        Which of two parameters are reset when a switch is suspected? The second has no curvature,
        so nothing is ever seen of it; that it belongs to another task now is seen on the first.

        >>> import jax.numpy as jnp
        >>> from beliefnav import filters, beliefs
        >>> model = beliefs.SwitchingOptimum(
        ...     curvature=jnp.array([1.0, 0.0]),
        ...     noise_variance=0.01,
        ...     prior_variance=1.0,
        ...     hazard=0.01,
        ... )
        >>> filter_ = beliefs.RunLengths(model, capacity=10).filter()
        >>> state = filter_.init(jnp.zeros(2))
        >>> for gradient in (1.0, 1.0, 1.0, -2.0):
        ...     predicted = filter_.predict(state, jnp.zeros(2))
        ...     state = filter_.update(predicted, jnp.array([gradient, 0.0]))
        >>> bool(state.switch_probability > 0.999)
        True
        >>> mean, variance = state.posterior().optimum(jnp.zeros(2))
        >>> [round(float(m), 2) for m in mean]
        [1.98, 0.0]
    """

    ranges: ClassVar = {
        "curvature": FINITE,
        "noise_variance": POSITIVE,
        "prior_variance": POSITIVE,
        "hazard": UNIT_INTERVAL,
        "prior_mean": FINITE,
    }

    curvature: Any
    noise_variance: Any
    prior_variance: Any
    hazard: ArrayLike | HazardGrid
    prior_mean: Any = 0.0

    def linear(self) -> Optimum:
        r"""The Ornstein-Uhlenbeck optimum of the same mean and autocovariance.

        $\rho = 1 - p$ and $q = v_0 (1 - \rho^2)$. No linear filter of a switching optimum has a
        smaller mean square error than the exact filter of this one, at every step.

        Returns:
            The model, for one array of parameters.

        Raises:
            ValueError: the hazard is to be learned or not one number, or the prior variance is a
                tree.
        """
        if isinstance(self.hazard, HazardGrid):
            raise ValueError(
                "Cannot use SwitchingOptimum.linear with a HazardGrid. This is because a linear "
                "filter does not learn a hazard; give a number."
            )
        if jax.tree.structure(self.prior_variance) != jax.tree.structure(0):
            raise ValueError(
                "Cannot use SwitchingOptimum.linear with a tree for prior_variance. This is "
                "because an Optimum is about one array; give a number or an array."
            )
        on_grid("SwitchingOptimum.linear", self.hazard)  # checks it
        stays = 1 - self.hazard
        return Optimum(
            curvature=self.curvature,
            noise_variance=self.noise_variance,
            prior_variance=self.prior_variance,
            prior_mean=self.prior_mean,
            process_variance=self.prior_variance * (1 - stays**2),
            autocorrelation=stays,
        )

    def numpyro_model(
        self, gradient: ArrayLike | None = None, displacement: ArrayLike | None = None
    ) -> Array:
        r"""The same model as a NumPyro program, for one array of parameters.

        Sites: ``switch`` [step], Bernoulli; ``drawn_optimum`` [step, ...], where the optimum moves
        to if there is a switch; ``observation`` [step, ...]; ``optimum``, the path of
        $\theta^*_t - \theta_0$, and ``gradient`` (deterministic); ``hazard`` and
        ``hazard_index``, if it is on a grid of more than one point.

        It simulates. To infer hyper-parameters by NUTS, which cannot move a discrete site, give
        `beliefnav.inference` a `beliefnav.beliefs.RunLengths`, which integrates the switches out.

        Args:
            gradient: [step, ...] a recorded stream to condition on; NaN or infinite entries are
                missing. ``None`` to simulate.
            displacement: [step, ...] how far the parameters moved after each observation.

        Returns:
            The observations [step, ...].

        Raises:
            ValueError: there is no displacement, or its shape is not that of the gradient; the
                hazard is not one number or a proper grid.
        """
        owner = type(self).__name__
        stream, displacement = _program.moving_stream(gradient, displacement, owner)
        return self.program(stream._replace(displacement=displacement))

    def program(self, stream: Stream) -> Array:
        """The program on a stream that was read."""
        import numpyro
        from numpyro import distributions as dist
        from numpyro.contrib.control_flow import scan

        owner, displacement = type(self).__name__, stream.displacement
        assert displacement is not None
        position = jnp.cumsum(_program.moved(displacement), 0)
        hazards, log_weights = on_grid(owner, self.hazard)
        hazard: Any = hazards[0]
        if len(hazards) > 1:
            index: Any = numpyro.sample("hazard_index", dist.CategoricalLogits(log_weights))
            hazard = numpyro.deterministic("hazard", hazards[index])
        mean = jnp.broadcast_to(self.prior_mean, stream.shape)
        scale, noise_scale = jnp.sqrt(self.prior_variance), jnp.sqrt(self.noise_variance)

        def step(before: Any, now: Any) -> Any:
            position, started, value, seen = now
            switch: Any = numpyro.sample("switch", dist.Bernoulli(jnp.where(started, hazard, 0.0)))
            drawn = numpyro.sample("drawn_optimum", dist.Normal(mean, scale))
            optimum = jnp.where((switch == 1) | ~started, drawn, before)
            gradient = self.curvature * (position - optimum)
            law = dist.Normal(gradient, noise_scale)
            return optimum, (optimum, gradient, _program.observe(law, value, seen))

        started = jnp.arange(stream.num_steps) > 0
        xs = (position, started, stream.values, stream.seen)
        path, gradients, observed = scan(step, mean, xs)[1]
        numpyro.deterministic("optimum", path)
        numpyro.deterministic("gradient", gradients)
        return observed
