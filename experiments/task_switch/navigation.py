r"""Weights that follow a belief through switches, by the policy that anticipates them.

Three weights whose losses are curved by `CURVATURES` start at the mean of all tasks, 0, and are
moved by `beliefnav.navigator` with `beliefnav.control.resetting`. What a learner knows is in its
belief; the policy is the same for all, and plans with the hazard that it believes in. An oracle is
told when the task switches, not to what.

The reset fraction is measured on a learner that has seen a task for a while. Then one gradient of
the sharpest weight alone comes, more or less surprising, and with it a probability $\pi$ of a
switch. Nothing is seen of the other weights, and yet their set-points, where the policy comes to
rest, move toward the mean of all tasks: by $1 - (1 - \pi) w$ of where their optimum was believed
to be.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from tqdm import tqdm

from beliefnav import beliefs, control, filters, navigator
from experiments import report
from experiments.task_switch.config import Config
from experiments.task_switch.tracking import told_of

CURVATURES = (2.0, 0.5, 0.1)
NOISE_VARIANCE, PRIOR_VARIANCE = 0.25, 1.0
DISCOUNT, TIME_STEP = 0.5, 0.5
CAPACITY = 64
SHOWN_SWITCHES = (60, 130, 180)
"""Steps at which tasks switch where trajectories are drawn; later switches are random."""
SHOWN_STEPS = 240
RESET_HAZARD = 0.1
"""Of the learners whose reset fractions are measured: high enough to tell curvatures apart."""
LAGS = 12
"""Steps after a switch over which beliefs are followed."""
STATIONARY = "BOCPD, no switches"
SUSPECTED = 0.5
"""A probability of a switch above this counts as an alarm."""


class Walk(NamedTuple):
    """A way through a sequence of tasks.

    Attributes:
        params: the weights before each gradient [step, weight].
        believed: where the optimum is believed to be, after it [step, weight].
        recent: probability that the task began at most five steps ago [step], NaN if the learner
            has no such thing.
        switch_probability: of a switch just before the gradient [step]; NaN likewise.
        loss: in excess of the least, before the gradient [step].
    """

    params: np.ndarray
    believed: np.ndarray
    recent: np.ndarray
    switch_probability: np.ndarray
    loss: np.ndarray


class Resets(NamedTuple):
    r"""Set-points after a surprise, for the weights of which nothing was seen.

    Attributes:
        switch_probability: $\pi$ [surprise].
        measured: share of the believed optimum that the set-point lost [surprise, weight].
        predicted: $1 - (1 - \pi) w$ [surprise, weight].
    """

    switch_probability: np.ndarray
    measured: np.ndarray
    predicted: np.ndarray


class Followed(NamedTuple):
    """What became of it.

    Attributes:
        optima: of the first `SHOWN_STEPS` steps [step, weight].
        shown: learner -> its way through them.
        loss: learner -> mean excess loss over all steps but the first.
        detected: median probability, by BOCPD five steps after a switch, that there was one.
        alarms: share of steps with a probability of a switch above `SUSPECTED`, by BOCPD: at
            switches, elsewhere, and in a stream without any.
        retained: learner -> share of the optimum believed before a switch that is left in what is
            believed from 0 to `LAGS` - 1 steps after it [step, weight]; and of BOCPD, at the same
            steps of a stream without switches.
        pull: the constant $1 - w$ of every weight.
        resets: learner -> reset fractions.
    """

    optima: np.ndarray
    shown: dict[str, Walk]
    loss: dict[str, float]
    detected: float
    alarms: tuple[float, float, float]
    retained: dict[str, np.ndarray]
    pull: np.ndarray
    resets: dict[str, Resets]


class Learner(NamedTuple):
    """A belief and how it is followed.

    Attributes:
        belief: about the optimum.
        hazard: that the policy plans for, per step; ``None``: that of the belief.
        told: whether it is told of switches.
    """

    belief: beliefs.Belief
    hazard: float | None = None
    told: bool = False


def learners(hazard: float) -> dict[str, Learner]:
    """The learners that are compared, by name."""
    curvature = jnp.array(CURVATURES)
    model = beliefs.SwitchingOptimum(curvature, NOISE_VARIANCE, PRIOR_VARIANCE, hazard)
    never = beliefs.TwoHypotheses(dataclasses.replace(model, hazard=0.0))
    return {
        "BOCPD": Learner(beliefs.RunLengths(model, CAPACITY)),
        "two hypotheses": Learner(beliefs.TwoHypotheses(model)),
        "run-length reset": Learner(beliefs.RunLengthReset(model)),
        "OU": Learner(model.linear(), hazard),
        "no forgetting": Learner(never),
        "oracle": Learner(never, hazard, told=True),
    }


def navigate(config: Config) -> Followed:
    """Follow every learner, on tasks to look at and on many."""
    every = learners(config.hazard)
    rng = np.random.default_rng(config.seed)
    count = config.navigation_steps
    switched = rng.random(count) < config.hazard
    switched[:SHOWN_STEPS] = False
    switched[list(SHOWN_SWITCHES)] = True
    optima, noise = tasks(rng, switched)
    with tqdm(total=len(every) + 3, desc="navigation", unit="walk") as bar:

        def go(learner: Learner, *stream: np.ndarray) -> Walk:
            bar.update()
            return walk(learner, *stream)

        long = {name: go(x, switched, optima, noise) for name, x in every.items()}
        bocpd = every["BOCPD"]
        typical = np.full_like(optima, np.sqrt(PRIOR_VARIANCE))
        still = go(bocpd, np.zeros(count, bool), typical, noise)
        resets = {}
        for name in ("BOCPD", "two hypotheses"):
            resets[name] = reset_fractions(learners(RESET_HAZARD)[name])
            bar.update()
    found = long["BOCPD"]
    at = np.flatnonzero(switched)
    retained = {name: retained_share(x, at) for name, x in long.items()}
    retained[STATIONARY] = retained_share(still, at)
    after = np.flatnonzero(switched)[:-1] + 5
    suspected = found.switch_probability > SUSPECTED
    weight = anticipated(config.hazard)
    settled = still.switch_probability[CAPACITY:]
    return Followed(
        optima=optima[:SHOWN_STEPS],
        shown={n: Walk(*(x[:SHOWN_STEPS] for x in found)) for n, found in long.items()},
        loss={name: float(x.loss[CAPACITY:].mean()) for name, x in long.items()},
        detected=float(np.median(found.recent[after])),
        alarms=(
            float(suspected[switched].mean()),
            float(suspected[~switched].mean()),
            float((settled > SUSPECTED).mean()),
        ),
        retained=retained,
        pull=1 - weight,
        resets=resets,
    )


def tasks(rng: np.random.Generator, switched: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Optima [step, weight] that are drawn anew where the task switches, and noise of gradients."""
    drawn = rng.normal(0, np.sqrt(PRIOR_VARIANCE), (switched.sum() + 1, len(CURVATURES)))
    noise = rng.normal(0, np.sqrt(NOISE_VARIANCE), (len(switched), len(CURVATURES)))
    return drawn[np.cumsum(switched)], noise


def policy(hazard: float | None) -> control.Policy:
    """The policy of all learners; ``hazard`` per step, ``None`` for that of the belief."""
    rate = None if hazard is None else control.continuous_hazard(hazard, TIME_STEP)
    return control.resetting(rate, DISCOUNT, time_step=TIME_STEP)


def anticipated(hazard: float) -> np.ndarray:
    """The weight w of every parameter."""
    rate = control.continuous_hazard(hazard, TIME_STEP)
    theory = control.anticipation(jnp.array(CURVATURES), rate, discount=DISCOUNT)
    return np.asarray(theory.weight)


def walk(learner: Learner, switched: np.ndarray, optima: np.ndarray, noise: np.ndarray) -> Walk:
    """Follow a learner through tasks."""
    optimizer = navigator(TIME_STEP, learner.belief, policy(learner.hazard))
    update: Any = optimizer.update
    curvature = jnp.array(CURVATURES)
    start = jnp.zeros(len(CURVATURES))
    fresh = optimizer.init(start)
    first = optax.tree.get(fresh, "belief")

    def step(carry: tuple[Array, Any], now: tuple[Array, Array, Array]) -> tuple[Any, Any]:
        params, state = carry
        switched, optimum, noise = now
        if learner.told:
            told = told_of(optax.tree.get(state, "belief"), switched, first)
            state = optax.tree.set(state, belief=told)
        away = params - optimum
        updates, state = update(curvature * away + noise, state, params)
        belief: Any = optax.tree.get(state, "belief")
        recent, switch_probability = jnp.nan, getattr(belief, "switch_probability", jnp.nan)
        if hasattr(belief, "run_length"):
            recent = jnp.exp(belief.log_weights).sum(0) @ (belief.run_length <= 5)
        loss = (curvature * away**2).sum() / 2
        seen = params, belief.posterior().optimum(params)[0], recent, switch_probability, loss
        return (params + updates, state), seen

    stream = jnp.asarray(switched), *(jnp.asarray(x, jnp.float32) for x in (optima, noise))
    seen = jax.jit(lambda stream: lax.scan(step, (start, fresh), stream)[1])(stream)
    return Walk(*(np.asarray(x) for x in seen))


def retained_share(found: Walk, at: np.ndarray) -> np.ndarray:
    """Slopes, through 0, of what is believed after some steps on what was believed before them.

    The new optimum does not depend on the old one, so that what was seen of it does not count.
    """
    at = at[(at > CAPACITY) & (at + LAGS < len(found.believed))]
    before = found.believed[at - 1]
    after = found.believed[at[:, None] + np.arange(LAGS)]
    return (before[:, None] * after).sum(0) / (before**2).sum(0)


def reset_fractions(learner: Learner) -> Resets:
    """Where set-points are after one gradient of the sharpest weight, as it surprises more."""
    filter_, follow = learner.belief.filter(), policy(learner.hazard)
    start = jnp.zeros(len(CURVATURES))
    optimum = jnp.ones_like(start)
    curvature = jnp.array(CURVATURES)
    still = jnp.zeros_like(start)
    seen = jnp.broadcast_to(-curvature * optimum, (30, len(CURVATURES)))
    settle: Any = jax.jit(lambda g: filters.last_state(learner.belief, g, jnp.zeros_like(g)))
    state = settle(seen)
    believed = state.posterior().optimum(start)[0]
    predicted = filter_.predict(state, still)

    def after(surprise: Array) -> tuple[Array, Array]:
        gradient = jnp.full_like(start, jnp.nan).at[0].set(-curvature[0] + surprise)
        state = filter_.update(predicted, gradient)
        posterior = state.posterior()

        def velocity(params: Array) -> Array:
            there = posterior._replace(gradient_mean=posterior.gradient_mean + curvature * params)
            return -follow.step(there, params, start)

        # The policy is affine: it comes to rest where the line through two velocities does.
        here, there = velocity(start), velocity(start + 1)
        return state.switch_probability, here / (here - there)

    surprises = jnp.linspace(0, 4, 60)
    probability, rest = jax.jit(jax.vmap(after))(surprises)
    probability = np.asarray(probability)
    kept = (1 - probability)[:, None] * anticipated(RESET_HAZARD)
    measured = 1 - np.asarray(rest) / np.asarray(believed)
    return Resets(probability, measured[:, 1:], 1 - kept[:, 1:])


def claims(config: Config, followed: Followed) -> list[report.Claim]:
    """That weights are reset when a switch is suspected, by as much as predicted, and only then.

    The reset fraction of two hypotheses is no claim: policy and prediction are one formula.
    """
    exact, left = followed.resets["BOCPD"], followed.retained
    alone = exact.measured - exact.switch_probability[:, None]
    loss, calm = followed.loss, int(exact.switch_probability.argmin())
    return [
        report.at_most("BOCPD: reset fraction - (1 - (1 - pi) w), largest", deviation(exact), 0.03),
        report.at_least(
            "control: BOCPD: reset fraction - pi alone, largest", np.abs(alone).max(), 0.1
        ),
        report.at_least(
            "BOCPD: reset fraction without a suspicion, flat - sharper",
            np.diff(exact.measured[calm]).min(),
            0.03,
        ),
        report.at_least("BOCPD: probability of a switch five steps after", followed.detected, 0.9),
        report.at_most(
            "BOCPD: old optimum left ten steps after a switch, largest of three weights",
            left["BOCPD"][10].max(),
            0.15,
            0.1 if config.quick else 0.0,
        ),
        report.at_least(
            "control: OU: old optimum left ten steps after a switch, largest of three weights",
            left["OU"][10].max(),
            0.4,
        ),
        report.at_most(
            "BOCPD: drop at the same steps without switches, largest",
            (1 - left[STATIONARY]).max(),
            0.02,
            0.02 if config.quick else 0.0,
        ),
        report.at_most("excess loss, BOCPD / OU", loss["BOCPD"] / loss["OU"], 0.9),
        report.at_most("excess loss, OU / no forgetting", loss["OU"] / loss["no forgetting"], 0.5),
    ]


def deviation(resets: Resets) -> float:
    r"""The largest distance of what was measured from $1 - (1 - \pi) w$."""
    return float(np.abs(resets.measured - resets.predicted).max())


def metrics(followed: Followed) -> dict[str, Any]:
    """What goes into metrics.json."""
    return {
        "excess_loss": followed.loss,
        "switch_probability_five_steps_later": followed.detected,
        "alarms": dict(
            zip(("at_switches", "elsewhere", "stationary"), followed.alarms, strict=True)
        ),
        "constant_pull": dict(zip(CURVATURES, followed.pull, strict=True)),
        "retained_after_switch": followed.retained,
        "reset_fraction_deviation": {n: deviation(r) for n, r in followed.resets.items()},
        "reset_fraction_by_switch_probability": {
            name: {"curvatures": CURVATURES[1:], **r._asdict()}
            for name, r in followed.resets.items()
        },
    }
