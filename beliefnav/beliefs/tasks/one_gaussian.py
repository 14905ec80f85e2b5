r"""Has the task switched? Two hypotheses at every step, and one Gaussian kept.

Both the belief about the present task, $N(m, v)$, and that about a new one, $N(\mu, v_0)$, are
conditioned on the observation $y_t$, to $(m_1, v_1)$ and $(m_0, v_0')$. The task has switched with
the probability $\pi$,

$$ \mathrm{logit}\, \pi = \mathrm{logit}\, p
   + \log p(y_t \mid \text{new}) - \log p(y_t \mid \text{present}) , $$

where the densities are those of all parameters together. What is kept differs:

- `TwoHypotheses`: the Gaussian with the moments of the mixture, $m = (1-\pi) m_1 + \pi m_0$ and
  $v = (1-\pi) v_1 + \pi v_0' + \pi (1-\pi) (m_1 - m_0)^2$;
- `RunLengthReset`: with $\nu = 1 - \pi$, if $\nu > 1/2$ a step of an Ornstein-Uhlenbeck process
  with the stationary law of a new task, of mean $\nu m + (1-\nu) \mu$ and variance
  $\nu^2 v + (1-\nu^2) v_0$, otherwise a new task; then conditioned on the observation.

Where nothing is observed $\pi = p$, but for the first step, before which no task can end. Both are
approximations of `RunLengths`, which keeps all hypotheses. At the second step `TwoHypotheses` still
has the exact moments.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from beliefnav.beliefs._program import Stream
from beliefnav.beliefs.contract import Belief, Fact, Filter, Info, Posterior
from beliefnav.beliefs.tasks import _tasks
from beliefnav.beliefs.tasks._tasks import Hazard, Task
from beliefnav.beliefs.tasks.switching_optimum import SwitchingOptimum

__all__ = [
    "Condition",
    "Keep",
    "OneTaskPredicted",
    "OneTaskState",
    "Pair",
    "RunLengthReset",
    "TwoHypotheses",
]

PyTree = Any
Condition = Callable[[Task], tuple[Task, PyTree]]
Pair = tuple[Task, Task]
Keep = Callable[[Array, Pair, Pair, Condition], Task]
"""From the probability of a switch, the present and a new task, and these two conditioned."""


class OneTaskState(NamedTuple):
    r"""One Gaussian over the optimum, after an observation.

    Attributes:
        task: the belief about $\theta^* - \theta_0$.
        position: $\theta - \theta_0$, a tree like the parameters.
        known_curvature: $h$.
        hazard_belief: over the probability of a switch.
        switch_probability: $\pi$, of a switch just before the last observation, a scalar.
        started: whether there was a step before: at the first no task can end.
    """

    task: Task
    position: PyTree
    known_curvature: PyTree
    hazard_belief: Hazard
    switch_probability: Array
    started: Array

    def posterior(self) -> Posterior:
        r"""Gradient $h(\theta - E\theta^*)$ with its variance, curvature $h$, expected hazard."""
        return _tasks.read(self.known_curvature, self.task, self.position, self.hazard_belief)


class OneTaskPredicted(NamedTuple):
    """Before an observation; fields as in `OneTaskState`."""

    task: Task
    position: PyTree
    hazard_belief: Hazard
    started: Array


class TwoHypotheses(Belief):
    r"""Two hypotheses, their mixture kept as one Gaussian (see the module docstring).

    A hazard on a grid is learned from
    $p(y_t \mid p_g) = (1 - p_g)\, p(y_t \mid \text{present}) + p_g\, p(y_t \mid \text{new})$, as
    if the present belief did not depend on it.

    An approximation. On streams of its own program (30 steps, hazards of 0.01 to 0.1) 92 % of 90 %
    intervals for the optimum hold it.

    Attributes:
        model: the switching optimum.

    Reference:
        Generalised pseudo-Bayesian filter of first order; Bar-Shalom, Li and Kirubarajan (2001),
        section 11.6.
    """

    model: SwitchingOptimum

    def filter(self) -> Filter:
        """The online filter; its states are `OneTaskState`."""

        def keep(switched: Array, tasks: Pair, conditioned: Pair, condition: Condition) -> Task:
            del tasks, condition
            return _tasks.mixture(switched, *conditioned)

        return _filter("TwoHypotheses", self.model, keep)

    def facts(self, quantity: str = "gradient", time: str = "step") -> tuple[Fact, ...]:
        """How long tasks are, and what is kept of them."""
        del quantity
        kept = "One Gaussian is kept, of a task that may have switched."
        return _tasks.facts(self.model, kept, time)

    def program(self, stream: Stream) -> Array:
        """The program of the model, see `beliefnav.beliefs.SwitchingOptimum.numpyro_model`."""
        return self.model.program(stream)


class RunLengthReset(Belief):
    """Forget in proportion to the doubt, start anew if it wins (see the module docstring).

    An approximation. On streams of its own program (30 steps, hazards of 0.01 to 0.1) 90 % of 90 %
    intervals for the optimum hold it.

    Attributes:
        model: the switching optimum. A hazard on a grid is learned as by `TwoHypotheses`.

    Reference:
        Duran-Martin, Sanchez-Betancourt, Shestopaloff and Murphy (2025), "A unifying framework for
        generalised Bayesian online learning in non-stationary environments": RL[1]-OUPR.
    """

    model: SwitchingOptimum

    def filter(self) -> Filter:
        """The online filter; its states are `OneTaskState`."""

        def keep(switched: Array, tasks: Pair, conditioned: Pair, condition: Condition) -> Task:
            del conditioned
            present, new = tasks
            gone = jnp.where(switched < 0.5, switched, 1)
            stays = 1 - gone
            mean = jax.tree.map(lambda m, mu: stays * m + gone * mu, present.mean, new.mean)
            variance = jax.tree.map(
                lambda v, v0: stays**2 * v + gone * (1 + stays) * v0, present.variance, new.variance
            )
            return condition(Task(mean, variance))[0]

        return _filter("RunLengthReset", self.model, keep)

    def facts(self, quantity: str = "gradient", time: str = "step") -> tuple[Fact, ...]:
        """How long tasks are, and what is kept of them."""
        del quantity
        kept = "One Gaussian is kept: of the present task or of a new one."
        return _tasks.facts(self.model, kept, time)

    def program(self, stream: Stream) -> Array:
        """The program of the model, see `beliefnav.beliefs.SwitchingOptimum.numpyro_model`."""
        return self.model.program(stream)


def _filter(owner: str, model: SwitchingOptimum, keep: Keep) -> Filter:
    def init(params: PyTree) -> OneTaskState:
        task, position, hazard = _tasks.start(owner, model, params)
        known = _tasks.known(model.curvature)
        never = jnp.zeros((), hazard.hazards.dtype)
        return OneTaskState(task, position, known, hazard, never, jnp.zeros((), bool))

    def predict(state: OneTaskState, displacement: PyTree = None) -> OneTaskPredicted:
        position = _tasks.move(owner, state.position, displacement)
        return OneTaskPredicted(state.task, position, state.hazard_belief, state.started)

    def observe(
        predicted: OneTaskPredicted, gradient: PyTree
    ) -> tuple[OneTaskState, Array, PyTree]:
        """The state, and the density relative to that of a new task, which is the last."""
        present, position, hazard, started = predicted
        _tasks.check_shapes(owner, "gradient", gradient, position)
        new = _tasks.new_task(owner, model, position)

        def condition(task: Task) -> tuple[Task, PyTree]:
            return _tasks.condition(owner, model, task, position, gradient)

        hazards = _tasks.hazards(owner, model, position)
        (kept, density), (begun, reference) = condition(present), condition(new)
        stay, switch = (hazard.log_weights + x for x in _tasks.transition(hazards, started))
        # Relative to the better of the two that can be, so that digits are kept.
        evidence = _tasks.evidence(density, reference)
        can_stay, can_switch = (
            jnp.where((x > -jnp.inf).any(), 0, -jnp.inf) for x in (stay, switch)
        )
        top = lax.stop_gradient(jnp.maximum(evidence + can_stay, can_switch))
        stay, switch = stay + (evidence - top), switch - top
        log_weights = jnp.logaddexp(stay, switch)
        total = jax.nn.logsumexp(log_weights)
        switched = jnp.exp(switch - total).sum()
        state = OneTaskState(
            task=keep(switched, (present, new), (kept, begun), condition),
            position=position,
            known_curvature=_tasks.known(model.curvature),
            hazard_belief=Hazard(hazards, log_weights - total),
            switch_probability=switched,
            started=jnp.ones((), bool),
        )
        return state, top + total, reference

    def update(
        predicted: OneTaskPredicted, gradient: PyTree, curvature: PyTree = None
    ) -> OneTaskState:
        del curvature
        return observe(predicted, gradient)[0]

    def diagnose(predicted: OneTaskPredicted, gradient: PyTree, curvature: PyTree = None) -> Info:
        del curvature
        present, position, hazard, started = predicted
        state, relative, reference = observe(predicted, gradient)
        new = _tasks.new_task(owner, model, position)
        hazards = _tasks.hazards(owner, model, position)
        switch = hazard.log_weights + _tasks.transition(hazards, started)[1]
        before = _tasks.mixture(jnp.exp(switch).sum(), present, new)
        density = relative + _tasks.total(reference)
        judged = state.switch_probability, state.hazard_belief
        return _tasks.info(owner, model, before, position, gradient, density, *judged)

    return Filter(init, predict, update, diagnose, uses_displacement=True)
