r"""A rotation of the parameters that nobody told of, learned while the loss is descended.

The loss is $\tfrac12 \sum_i h_i (\theta_i - \theta^*_i)^2$, and parameters rotate by themselves,
$f(\theta) = q (-\theta_2, \theta_1)$. A controller that ignores this follows
$u = -\sqrt H (\theta - \theta^*)$, the plan without a drift, and rests where the rotation balances
it, $(\sqrt H - q J) \theta = \sqrt H \theta^*$: in a spiral trap. The one that knows rests where
the cost of standing still, $\tfrac12 |q J \theta|^2$, and the loss are least together,
$(H + q^2 I) \theta = H \theta^*$. The one that learns starts as the first, regresses where the
parameters are found on where they were and on the step that was commanded, and follows the plan for
the mean of what it believes (certainty equivalence).

Each step has noise, $d = \Delta t (f(\theta) + u) + \sqrt{\Delta t}\, \sigma \, N(0, I)$. Where a
controller rests is the mean of the last quarter of its path. The fourth controller begins to learn
at half time: it has come to rest in the trap, sees no more than the noise around it, and leaves.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from beliefnav import Objective, control
from beliefnav.beliefs.drift.coupled import CoupledDrift
from experiments import figures, report

CURVATURES, MINIMUM, START = (1.0, 2.0), (0.0, -0.5), (1.5, 1.5)
FREQUENCY = 2.0
BELIEF = CoupledDrift()
KINDS = ("known", "ignored", "learned", "learned late")
COLOURS: dict[str, str] = dict(
    zip(KINDS, (figures.BLACK, figures.ORANGE, figures.BLUE, figures.GREEN), strict=True)
)


class Setting(NamedTuple):
    """How much is simulated."""

    steps: int = 4000
    """Steps of a path."""
    seeds: int = 20
    """Paths of every controller."""
    time_step: float = 0.02
    """Duration of a step."""
    noise: float = 0.05
    """Standard deviation of the noise in a unit of time."""
    replanned: int = 10
    """Steps between two plans of a controller that learns."""


QUICK = Setting(steps=2000, replanned=20)


def equilibria() -> dict[str, np.ndarray]:
    """Where the controllers rest that know and that ignore, by linear algebra alone."""
    h, minimum = np.diag(CURVATURES), np.array(MINIMUM)
    turn = FREQUENCY * np.array([[0.0, -1.0], [1.0, 0.0]])
    root = np.sqrt(h)
    return {
        "known": np.linalg.solve(h + turn.T @ turn, h @ minimum),
        "ignored": np.linalg.solve(root - turn, root @ minimum),
    }


def rotated(params: Array) -> Array:
    """The drift."""
    return FREQUENCY * jnp.stack([-params[1], params[0]])


def measured(setting: Setting, seed: int) -> dict[str, Any]:
    """Simulate all controllers on the same noise.

    Args:
        setting: how much.
        seed: of the noise.

    Returns:
        ``equilibrium``: where they rest, by theory for ``known`` and ``ignored``, and ``learned``
        and ``simulated``, the mean, standard error and spread (standard deviation) over seeds;
        ``cost`` of a unit of time in the last quarter; ``matrix``, the drift that was learned and
        its deviations; ``paths`` {controller: [seed, step, 2]} for the figure.
    """
    keys = jax.random.split(jax.random.key(seed), setting.seeds)
    with jax.enable_x64(True):
        simulate = jax.jit(jax.vmap(lambda key: _simulated(setting, key)))
        paths, costs, mean, deviation = jax.tree.map(np.asarray, simulate(keys))
    last = slice(-setting.steps // 4, None)
    rests = {kind: path[:, last].mean(1) for kind, path in paths.items()}
    theory = equilibria()
    return {
        "equilibrium": {
            **{kind: point.tolist() for kind, point in theory.items()},
            "learned": _over_seeds(rests["learned"]),
            "simulated": {kind: _over_seeds(rest) for kind, rest in rests.items()},
        },
        "cost": {kind: float(cost[:, last].mean()) for kind, cost in costs.items()},
        "matrix": {
            "true": [[0.0, -FREQUENCY], [FREQUENCY, 0.0]],
            "mean": mean.mean(0).tolist(),
            "spread": mean.std(0, ddof=1).tolist(),
            "deviation": deviation.mean(0).tolist(),
        },
        "paths": paths,
    }


def _over_seeds(rests: np.ndarray) -> dict[str, list[float]]:
    """Mean, standard error and standard deviation of points [seed, 2]."""
    spread = rests.std(0, ddof=1)
    return {
        "mean": rests.mean(0).tolist(),
        "standard_error": (spread / np.sqrt(len(rests))).tolist(),
        "spread": spread.tolist(),
    }


def _simulated(setting: Setting, key: Array) -> tuple[Any, Any, Array, Array]:
    """Paths and costs of every controller, and the matrix that was learned with its deviations."""
    blocks = setting.steps // setting.replanned
    size = blocks, setting.replanned, 2
    noise = setting.noise * jnp.sqrt(setting.time_step) * jax.random.normal(key, size)
    known = _Plan.of(rotated)
    found = {
        "known": _followed(setting, known, noise, learn_from=None),
        "ignored": _followed(setting, _Plan.of(lambda x: 0 * x), noise, learn_from=None),
        "learned": _followed(setting, None, noise, learn_from=0),
        "learned late": _followed(setting, None, noise, learn_from=blocks // 2),
    }
    believed = BELIEF.posterior(found["learned"][2])
    variances = jnp.diagonal(believed.covariance, axis1=1, axis2=2)[:, :2]
    paths, costs = ({kind: f[i] for kind, f in found.items()} for i in (0, 1))
    return paths, costs, believed.matrix_mean, jnp.sqrt(variances)


class _Plan(NamedTuple):
    """A linear command: ``matrix @ params + offset`` [2]."""

    matrix: Array
    offset: Array

    @classmethod
    def of(cls, drift: Any) -> "_Plan":
        """The optimal command for a drift, which is the optimal velocity less the drift."""
        objective = Objective(discount=0.0, drift=drift)
        policy = control.lq_policy(objective, jnp.diag(jnp.array(CURVATURES)), jnp.array(MINIMUM))

        def command(params: Array) -> Array:
            return policy.velocity(params) - drift(params)

        origin = jnp.zeros(2)
        return cls(jax.jacfwd(command)(origin), command(origin))


def _followed(setting: Setting, plan: Any, noise: Array, learn_from: int | None) -> Any:
    """The path [step, 2] of a controller, its cost [step], and its belief.

    Args:
        setting: durations.
        plan: of a controller that does not learn.
        noise: [block, step of the block, 2].
        learn_from: the block from which on it learns; ``None`` for a controller that does not.
    """

    def step(carry: Any, noise: Array, plan: _Plan, learns: Any) -> Any:
        params, state = carry
        command = plan.matrix @ params + plan.offset
        sent = setting.time_step * command
        moved = sent + setting.time_step * rotated(params) + noise
        h = jnp.array(CURVATURES)
        cost = jnp.sum(command**2 + h * (params - jnp.array(MINIMUM)) ** 2) / 2
        if learn_from is not None:
            after = BELIEF.update(state, params, moved - sent, setting.time_step)
            state = jax.tree.map(lambda a, b: jnp.where(learns, a, b), after, state)
        return (params + moved, state), (params + moved, cost)

    def block(carry: Any, inputs: Any) -> Any:
        index, noise = inputs
        own = plan if learn_from is None else _Plan.of(BELIEF.posterior(carry[1]).drift)
        learns = learn_from is not None and index >= learn_from
        return lax.scan(lambda c, e: step(c, e, own, learns), carry, noise)

    start = jnp.array(START)
    first = (start, BELIEF.init(start))
    (_, state), (path, cost) = lax.scan(block, first, (jnp.arange(len(noise)), noise))
    return path.reshape(-1, 2), cost.reshape(-1), state


def claims(found: dict[str, Any]) -> list[report.Claim]:
    """What a run claims, of a quick one too."""
    equilibrium, cost = found["equilibrium"], found["cost"]
    known, ignored = (np.array(equilibrium[kind]) for kind in ("known", "ignored"))
    simulated = equilibrium["simulated"]
    listed = [
        report.close(f"rotation, {kind}: rests at θ[{i}]", point[i], value, 1e-4)
        for kind, point, values in (
            ("known", known, (0.0, -0.1667)),
            ("ignored", ignored, (0.2612, -0.1306)),
        )
        for i, value in enumerate(values)
    ]

    def off(kind: str, point: np.ndarray) -> float:
        """How many standard errors the mean is off, in the worse coordinate."""
        errors = np.subtract(simulated[kind]["mean"], point)
        return float(np.abs(errors / simulated[kind]["standard_error"]).max())

    gap = cost["ignored"] - cost["known"]
    return [
        *listed,
        report.at_most("rotation, known: standard errors from theory", off("known", known), 3),
        report.at_most(
            "rotation, ignored: standard errors from theory", off("ignored", ignored), 3
        ),
        report.at_most("rotation, learned: standard errors from known", off("learned", known), 3),
        report.at_least(
            "rotation, learned: standard errors from ignored", off("learned", ignored), 10
        ),
        report.at_most(
            "rotation, learned at half time: distance from known over that of the trap",
            np.linalg.norm(simulated["learned late"]["mean"] - known)
            / np.linalg.norm(ignored - known),
            0.1,
        ),
        report.at_most(
            "rotation, learned: share of the cost of ignorance that is left",
            (cost["learned"] - cost["known"]) / gap,
            0.1,
        ),
    ]


def draw(path: Path, found: dict[str, Any]) -> None:
    """Phase portrait of one seed, and the distance from where the one that knows rests."""
    paths, theory = found["paths"], equilibria()
    h = np.array(CURVATURES)
    x, y = np.meshgrid(np.linspace(-0.9, 1.7, 80), np.linspace(-0.9, 1.7, 80))
    height = h[0] * (x - MINIMUM[0]) ** 2 + h[1] * (y - MINIMUM[1]) ** 2
    with figures.page(path, 1, 2, 4.2) as (left, right):
        left.contour(x, y, height, 12, colors="0.85", linewidths=0.6, zorder=0)
        for kind in KINDS:
            left.plot(*paths[kind][0].T, color=COLOURS[kind], lw=0.9, label=kind)
        left.plot(*MINIMUM, "*", color="k", ms=9, zorder=5)
        for kind, point in theory.items():
            style = {"ms": 9, "mfc": "none", "mew": 1.8, "zorder": 6}
            left.plot(*point, "o", color=COLOURS[kind], **style)
        left.set(xlabel=r"$\theta_1$", ylabel=r"$\theta_2$", aspect="equal")
        left.set(title=f"Paths of one seed, rotation q = {FREQUENCY:g}")
        for kind in KINDS:
            distance = np.linalg.norm(paths[kind] - theory["known"], axis=2)
            steps = np.arange(1, distance.shape[1] + 1)
            right.loglog(steps, distance.mean(0), color=COLOURS[kind], lw=1.0, label=kind)
        right.axhline(
            np.linalg.norm(theory["ignored"] - theory["known"]), color="0.8", lw=0.8, zorder=0
        )
        right.set(xlabel="step", title="Distance from the rest of the one that knows")
        figures.legend_above(right)
        figures.note(
            left,
            "Circles: where theory lets the controllers rest that know (black) and that ignore "
            "(orange: the spiral trap, grey line).\nStar: minimum of the loss. Right: mean over "
            f"{len(paths['known'])} seeds.",
        )
