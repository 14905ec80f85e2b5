r"""Change the geometry of parameter space and let the parameters drift.

Claim: on a quadratic loss, a metric makes cheap directions fast (natural
gradient), a rotation that is not under control makes the path a spiral, and weight decay pulls it
off the minimum; each by the closed form of the LQ policy. Beyond the paper: discounts; how far a
rotation traps the path away from the minimum; natural gradient on a real logistic regression does
not care about coordinates, where plain descent does; and ballistic overshoot, how far curvature may
be under-estimated before the discretised step diverges. It would be refuted by numerical paths of
least action that leave the closed forms, by a natural gradient that depends on coordinates, or by
steps that diverge elsewhere than derived.

The boundary of overshoot: with believed curvature $V$, true curvature $cV$ and planning gain
$\varphi$, the step multiplies the distance from the minimum by $1 - \varphi c V$, so it diverges
above $c = 2 / (\varphi V)$. With $\rho$ the rate of the closed loop that is believed in, this is
$2 / (1 - e^{-\rho \Delta t}) \ge 2$ for exact hold, and $2 / (\rho \Delta t)$ for replanning.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from beliefnav import Objective, Posterior, control
from beliefnav.control.gains.lq import LQPolicy
from beliefnav.control.paths.least_action import LeastActionPath
from beliefnav.objective import velocity
from experiments import figures, report
from experiments.options import OptionError, Options

DISCOUNTS = (0.0, 1.0, 5.0)
COLOURS = {0.0: figures.BLUE, 1.0: figures.GREEN, 5.0: figures.RED}
CURVATURE, MINIMUM, START = 4.0, (0.0, -0.5), (1.5, 1.5)
FREQUENCY, DECAY = 10.0, 10.0
DURATION, SHOWN = 12.0, 6.0
"""Time that is planned, and of which the path is read."""
SETTLED = 20.0
"""Time after which the slowest path is at its equilibrium: the rate is 0.7 at discount 5."""


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Change the geometry of parameter space and let the parameters drift.

    A quick run has looser bounds on what depends on the number of points.
    """

    QUICK = {"points_per_time": 250, "planned_points": 101}
    LEAST = {"points_per_time": 200, "planned_points": 11}

    points_per_time: int = 1000
    """Points of a path for a unit of time."""
    planned_points: int = 401
    """Points of a path that is planned with the Fisher metric."""
    components: int = 4
    """Principal components of the digits that the logistic regression sees."""
    digits: tuple[int, int] = (3, 8)
    """The two digits that it tells apart."""

    def check(self) -> None:
        """Raise an `OptionError` on components or digits that are not there."""
        if not 1 <= self.components <= 20:
            raise OptionError(f"components must be in 1 ... 20, got {self.components}.")
        if len(set(self.digits)) != 2 or not set(self.digits) <= set(range(10)):
            raise OptionError(f"digits must be two different ones of 0 ... 9, got {self.digits}.")


def run(config: Config) -> report.Report:
    """Plan, simulate, measure, draw."""
    density = config.points_per_time
    with jax.enable_x64(True), tqdm(total=len(SETTINGS) + 3, unit="part") as bar:

        def part(name: str, measure: Callable[..., Any], *arguments: Any) -> Any:
            bar.set_description(name)
            value = measure(*arguments)
            bar.update()
            return value

        compared = {name: part(name, compare, s, density) for name, s in SETTINGS.items()}
        trap = part("spiral trap", measure_trap, density)
        coordinates = part("coordinates", change_coordinates, config)
        overshoot = part("overshoot", measure_overshoot)
    draw_paths(config.folder / "geometry.png", compared)
    draw_beyond(config.folder / "geometry_beyond.png", trap, coordinates, overshoot)
    found = {key: (compared[name][g], field) for key, name, g, field, *_ in EXPECTED}
    trapped = ("discount", "frequency", "bias", "measured")
    overshot = ("exact_hold", "discount", "time_step", "derived", "measured")
    results = {
        **{key: getattr(c, field) for key, (c, field) in found.items()},
        "simulated": {key: getattr(c, f"measured_{field}") for key, (c, field) in found.items()},
        "spiral_trap": [
            dict(zip(trapped, (g, *row), strict=True))
            for g, columns in trap.items()
            for row in zip(*columns, strict=True)
        ],
        "coordinates": coordinates.differences,
        "overshoot": [
            dict(zip(overshot, (*setting, *row), strict=True))
            for setting, columns in overshoot.items()
            for row in zip(*columns, strict=True)
        ],
    }
    return report.Report(claims(config, compared, trap, coordinates, overshoot), results)


# --- metric, rotation, decay ------------------------------------------------------------


class Setting(NamedTuple):
    """A geometry: an optional metric and an optional drift of the parameters [2]."""

    metric: Callable[[Array], Array] | None = None
    drift: Callable[[Array], Array] | None = None


def _rotation(frequency: Any) -> Callable[[Array], Array]:
    return lambda x: frequency * jnp.stack([-x[1], x[0]])


SETTINGS = {
    "plain": Setting(),
    "metric": Setting(metric=lambda x: jnp.array([1 / 50, 1.0])),
    "rotation": Setting(drift=_rotation(FREQUENCY)),
    "weight decay": Setting(drift=lambda x: -DECAY * x),
}


EXPECTED = (
    ("metric_rates", "metric", 0.0, "rates", (14.1421, 2.0), 1e-4),
    ("rotation_equilibrium", "rotation", 0.0, "equilibrium", (0.0, -0.0192308), 1e-6),
    ("decay_equilibrium", "weight decay", 0.0, "equilibrium", (0.0, -0.0192308), 1e-6),
    ("rotation_discounted", "rotation", 1.0, "equilibrium", (0.0018322, -0.0190546), 1e-6),
    ("decay_rates_discounted", "weight decay", 1.0, "rates", (10.188779, 10.188779), 1e-5),
    ("decay_discounted", "weight decay", 1.0, "equilibrium", (0.0, -0.0175439), 1e-6),
)
"""Name in ``metrics.json``, setting, discount, field of `Comparison`, value, and tolerance."""


class Comparison(NamedTuple):
    """The LQ policy of a setting, and what a numerical path of least action shows of it.

    Attributes:
        times: [time] up to ``SHOWN``.
        policy: [time, 2] the path of the policy.
        simulated: [time, 2] the numerical path.
        rates: [2] of decay, from the eigenvalues of the closed loop.
        measured_rates: [2] from the numerical path.
        equilibrium: [2] of the policy.
        measured_equilibrium: [2] from the numerical path.
    """

    times: np.ndarray
    policy: np.ndarray
    simulated: np.ndarray
    rates: np.ndarray
    measured_rates: np.ndarray
    equilibrium: np.ndarray
    measured_equilibrium: np.ndarray


def compare(setting: Setting, density: int) -> dict[float, Comparison]:
    """Compare the policy with a numerical path whose end is free, for every discount."""
    shown = 1 + int(SHOWN * density)

    @jax.jit
    def both(discount: Array) -> tuple[LQPolicy, Array, Array, Array]:
        objective = Objective(discount=discount, metric=setting.metric, drift=setting.drift)
        policy = control.lq_policy(objective, CURVATURE * jnp.eye(2), jnp.array(MINIMUM))
        # From two sides, so that both directions of the closed loop are seen.
        starts = jnp.array([START, (-START[0], START[1])])
        paths = jax.vmap(lambda x: _least_action(objective, x, DURATION, density))(starts)
        times = paths.times[0, :shown]
        return policy, times, policy.path(starts[0], times), paths.params[:, :shown]

    comparisons = {}
    for g in DISCOUNTS:
        policy, times, path, simulated = jax.tree.map(np.asarray, both(g))
        # A path obeys d/dt theta = F theta + offset: least squares for both, on its beginning.
        early = slice(0, 1 + density // 2)
        speed = np.gradient(simulated, 1 / density, axis=1, edge_order=2)[:, early].reshape(-1, 2)
        design = np.insert(simulated[:, early].reshape(-1, 2), 2, 1.0, axis=1)
        loop, offset = np.split(np.linalg.lstsq(design, speed)[0], [2])
        comparisons[g] = Comparison(
            times=times,
            policy=path,
            simulated=simulated[0],
            rates=-np.linalg.eigvals(policy.closed_loop).real,
            measured_rates=-np.linalg.eigvals(loop.T).real,
            equilibrium=policy.equilibrium,
            measured_equilibrium=-np.linalg.solve(loop.T, offset[0]),
        )
    return comparisons


def _least_action(
    objective: Objective, start: Array, duration: float, density: int
) -> LeastActionPath:
    """A long path on the quadratic loss with a free end."""
    return control.least_action_path(
        objective, _quadratic, start, duration=duration, num_points=1 + int(duration * density)
    )


def _quadratic(x: Array) -> Array:
    return CURVATURE / 2 * jnp.sum((x - jnp.array(MINIMUM)) ** 2)


# --- the spiral trap ----------------------------------------------------------------------------


def measure_trap(density: int) -> dict[float, tuple[np.ndarray, ...]]:
    r"""Discount -> frequencies, bias by formula, and bias of numerical paths.

    In the complex plane the equilibrium is $\eta k h / (\eta k h + q^2 - i q \gamma) \theta^*$.
    """
    frequencies = np.array([0.0, 0.5, 1.0, 2.0, 4.0, 7.0, 10.0, 15.0])

    def middle(frequency: Array, discount: Array) -> Array:
        objective = Objective(discount=discount, drift=_rotation(frequency))
        path = _least_action(objective, jnp.array(MINIMUM), 2 * SETTLED, density)
        return path.params[int(SETTLED * density)]

    simulate = jax.jit(lambda g: jax.lax.map(lambda q: middle(q, g), jnp.asarray(frequencies)))
    trap = {}
    for g in DISCOUNTS:
        minimum = complex(*MINIMUM)
        equilibrium = CURVATURE / (CURVATURE + frequencies**2 - 1j * frequencies * g) * minimum
        distance = np.linalg.norm(np.asarray(simulate(g)) - np.array(MINIMUM), axis=1)
        trap[g] = (frequencies, np.abs(equilibrium - minimum), distance)
    return trap


# --- natural gradient does not care about coordinates -------------------------------------------


class Coordinates(NamedTuple):
    """Descent of a logistic regression in two systems of coordinates.

    Attributes:
        times: [time].
        losses: (rule, coordinates) -> [time] training loss in nats.
        differences: rule -> largest distance between the two paths, brought to the same
            coordinates, over the length of the weights at the end.
    """

    times: np.ndarray
    losses: dict[tuple[str, str], np.ndarray]
    differences: dict[str, float]


def change_coordinates(config: Config) -> Coordinates:
    """Follow natural and plain gradient, and plan with the Fisher metric, in two coordinates."""
    inputs, labels = _digits(config)
    n = inputs.shape[1]
    turn = np.linalg.qr(np.random.default_rng(config.seed).normal(size=(n, n)))[0]
    mixing = jnp.asarray(turn * np.geomspace(0.5, 2.0, n))

    def logits(weights: Array) -> Array:
        return inputs @ weights

    def weights_of(u: Array) -> Array:
        return mixing @ jnp.sinh(u)

    def problem(chart: Callable[[Array], Array]) -> tuple[Any, Any]:
        def loss(x: Array) -> Array:
            z = logits(chart(x))
            return jnp.mean(jax.nn.softplus(z) - labels * z)

        def fisher(x: Array) -> Array:
            p = jax.nn.sigmoid(logits(chart(x)))
            jacobian = jax.jacfwd(lambda x: logits(chart(x)))(x)
            return (jacobian * (p * (1 - p))[:, None]).T @ jacobian / len(labels)

        return loss, fisher

    charts = {"weights": lambda x: x, "other coordinates": weights_of}
    times, num_points = jnp.linspace(0.0, 4.0, 81), config.planned_points
    start = jnp.zeros(n)
    visited, losses = {}, {}
    for name, chart in charts.items():
        loss, fisher = problem(chart)
        rules = {
            "natural gradient": Objective(metric=fisher),
            "plain gradient": Objective(),
        }

        def flow(x: dict[str, Array], loss: Any = loss, rules: Any = rules) -> dict[str, Array]:
            # The myopic policy: momentum is minus the gradient.
            return {
                rule: velocity(o, x[rule], -jax.grad(loss)(x[rule])) for rule, o in rules.items()
            }

        begin = dict.fromkeys(rules, start)
        followed = control.follow(flow, begin, times, rtol=1e-9, atol=1e-10).params
        for rule, path in followed.items():
            visited[rule, name] = np.asarray(jax.vmap(chart)(path))
            losses[rule, name] = np.asarray(jax.vmap(loss)(path))
        planned = jax.jit(
            lambda loss=loss, fisher=fisher: control.least_action_path(
                Objective(metric=fisher), loss, start, duration=2.0, num_points=num_points
            )
        )()
        visited["planned, Fisher metric", name] = np.asarray(jax.vmap(chart)(planned.params))

    def difference(rule: str) -> float:
        one, other = (visited[rule, name] for name in charts)
        return float(np.linalg.norm(one - other, axis=1).max() / np.linalg.norm(one[-1]))

    rules = ("natural gradient", "plain gradient", "planned, Fisher metric")
    return Coordinates(np.asarray(times), losses, {rule: difference(rule) for rule in rules})


def _digits(config: Config) -> tuple[Array, Array]:
    """Principal components [example, component + 1] with a bias, and labels 0 or 1."""
    from sklearn.datasets import load_digits
    from sklearn.decomposition import PCA

    digits: Any = load_digits()
    chosen = np.isin(digits.target, config.digits)
    components = PCA(config.components, whiten=True).fit_transform(digits.data[chosen])
    inputs = np.column_stack([components, np.ones(len(components))])
    return jnp.asarray(inputs), jnp.asarray(digits.target[chosen] == config.digits[1]).astype(float)


# --- ballistic overshoot ------------------------------------------------------------------------


def measure_overshoot() -> dict[tuple[bool, float], tuple[np.ndarray, ...]]:
    """(Exact hold, discount) -> time steps, and the largest factor by formula and by bisection."""
    time_steps = np.geomspace(0.05, 5.0, 13)
    believed = 4.0
    result = {}
    for exact_hold in (True, False):

        def diverges(factor: Array, discount: Array, time_step: Array, hold: bool) -> Array:
            policy = control.horizon(Objective(discount=discount), time_step, exact_hold=hold)

            def believe(x: Array, _: Array) -> Posterior:
                return Posterior(
                    gradient_mean=factor * believed * x,
                    curvature_mean=jnp.full_like(x, believed),
                )

            path = control.navigate_locally(policy, believe, jnp.ones(()), num_steps=400)
            return ~(jnp.abs(path[-1]) <= 1)  # what overflows is not a number in the end

        def largest(discount: Array, time_step: Array, hold: bool = exact_hold) -> Array:
            def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
                low, high = bracket
                middle = jnp.sqrt(low * high)
                above = diverges(middle, discount, time_step, hold)
                return jnp.where(above, low, middle), jnp.where(above, middle, high)

            bracket = (jnp.array(1e-3), jnp.array(1e4))
            return jax.lax.fori_loop(0, 50, halve, bracket)[0]

        search = jax.jit(jax.vmap(largest, (None, 0)))
        for g in DISCOUNTS:
            rate = np.sqrt(g**2 / 4 + believed) - g / 2
            held = -np.expm1(-rate * time_steps) if exact_hold else rate * time_steps
            measured = search(g, jnp.asarray(time_steps))
            result[exact_hold, g] = (time_steps, 2 / held, np.asarray(measured))
    return result


# --- what it claims, and figures ----------------------------------------------------------------


def claims(
    config: Config,
    compared: dict[str, dict[float, Comparison]],
    trap: dict[float, tuple[np.ndarray, ...]],
    coordinates: Coordinates,
    overshoot: dict[tuple[bool, float], tuple[np.ndarray, ...]],
) -> list[report.Claim]:
    """What this run claims; quick runs loosen what depends on the number of points."""
    loose = 16.0 if config.quick else 1.0
    listed = []
    for _, name, g, field, values, tolerance in EXPECTED:
        comparison = compared[name][g]
        exact, simulated = getattr(comparison, field), getattr(comparison, f"measured_{field}")
        for i, value in enumerate(values):
            label = f"{name}, discount {g:g}, {field}[{i}]"
            listed.append(report.close(f"{label}: LQ", exact[i], value, tolerance))
            relative = 1e-3 * loose * max(abs(value), 0.1)
            listed.append(report.close(f"{label}: path", simulated[i], value, relative))
    error = max(
        np.abs(c.policy - c.simulated).max() for row in compared.values() for c in row.values()
    )
    bias = max(np.abs(derived - measured).max() for _, derived, measured in trap.values())
    margin = max(np.abs(m / c - 1).max() for _, c, m in overshoot.values())
    safe = min(c.min() for (hold, _), (_, c, _) in overshoot.items() if hold)
    differences = coordinates.differences
    return [
        *listed,
        report.at_most("numerical paths against LQ paths", error, 1e-3 * loose),
        report.at_most("spiral trap: bias, measured against formula", bias, 1e-3 * loose),
        report.at_most(
            "natural gradient in other coordinates", differences["natural gradient"], 1e-6
        ),
        report.at_most(
            "plan with Fisher metric in other coordinates",
            differences["planned, Fisher metric"],
            1e-4,
        ),
        report.at_least("plain gradient in other coordinates", differences["plain gradient"], 0.05),
        report.at_most("overshoot: boundary, measured against formula", margin, 1e-6),
        report.at_least("overshoot: least factor under exact hold", safe, 2.0),
    ]


def draw_paths(file: Path, compared: dict[str, dict[float, Comparison]]) -> None:
    """The four settings side by side."""
    titles = {
        "plain": "no metric, no drift",
        "metric": "metric diag(1/50, 1)",
        "rotation": f"rotation, q = {FREQUENCY:g}",
        "weight decay": f"weight decay, j = {DECAY:g}",
    }
    x, y = np.meshgrid(np.linspace(-1.5, 1.9, 80), np.linspace(-1.5, 1.9, 80))
    height = (x - MINIMUM[0]) ** 2 + (y - MINIMUM[1]) ** 2
    options = {"sharex": True, "sharey": True, "layout": "compressed"}
    with figures.page(file, 1, 4, 3.6, **options) as panels:
        for axes, (name, row) in zip(panels, compared.items(), strict=True):
            axes.contour(x, y, height, 10, colors="0.85", linewidths=0.6, zorder=0)
            for g, c in row.items():
                axes.plot(*c.policy.T, color=COLOURS[g], lw=1.4, label=rf"$\gamma$ = {g:g}")
                dots = np.searchsorted(c.times, np.linspace(0, 1.5, 16))
                axes.plot(*c.simulated[dots].T, "o", ms=3.5, mfc="none", color=COLOURS[g])
            axes.plot(*MINIMUM, "*", color="k", ms=9, zorder=5)
            axes.plot(*START, ".", color="k", ms=9, zorder=5)
            axes.set(title=titles[name], xlabel=r"$\theta_1$", aspect="equal")
        panels[0].set_ylabel(r"$\theta_2$")
        panels[-1].legend(loc="upper left")
        figures.note(
            panels[0],
            "Lines: policy of the linear-quadratic problem. Circles: path of least action, every "
            "0.1 up to time 1.5.\nStar: minimum of the loss. Dot: start.",
        )


def draw_beyond(
    file: Path,
    trap: dict[float, tuple[np.ndarray, ...]],
    coordinates: Coordinates,
    overshoot: dict[tuple[bool, float], tuple[np.ndarray, ...]],
) -> None:
    """The spiral trap, two systems of coordinates, and ballistic overshoot."""
    with figures.page(file, 1, 3) as (left, middle, right):
        _draw_trap(left, trap)
        _draw_coordinates(middle, coordinates)
        _draw_overshoot(right, overshoot)


def _draw_trap(axes: Any, trap: dict[float, tuple[np.ndarray, ...]]) -> None:
    q = np.linspace(0, 15, 200)
    for g, (frequencies, _, measured) in trap.items():
        bias = np.abs(CURVATURE / (CURVATURE + q**2 - 1j * q * g) - 1) * np.hypot(*MINIMUM)
        axes.plot(q, bias, color=COLOURS[g], label=rf"$\gamma$ = {g:g}")
        axes.plot(frequencies, measured, "o", ms=4, mfc="none", color=COLOURS[g])
    axes.axhline(np.hypot(*MINIMUM), color="0.8", lw=0.8, zorder=0)
    axes.legend(title="line: formula\ncircle: path", title_fontsize=8)
    axes.set(xlabel="frequency q of the rotation", ylabel="distance from the minimum")
    axes.set_title("Spiral trap")


def _draw_coordinates(axes: Any, coordinates: Coordinates) -> None:
    styles = {"weights": "-", "other coordinates": "o"}
    colours = {"natural gradient": figures.BLUE, "plain gradient": figures.ORANGE}
    for (rule, name), values in coordinates.losses.items():
        every = slice(None, None, 1 if name == "weights" else 5)
        style = {"ms": 4, "mfc": "none", "color": colours[rule], "label": f"{rule}, {name}"}
        axes.plot(coordinates.times[every], values[every], styles[name], **style)
    axes.legend()
    axes.set(xlabel="time", ylabel="training loss (nats)", title="Two coordinate systems")
    axes.set_ylim(0, 1)  # room for the legend


def _draw_overshoot(axes: Any, overshoot: dict[tuple[bool, float], tuple[np.ndarray, ...]]) -> None:
    for (hold, g), (time_steps, derived, measured) in overshoot.items():
        label = rf"$\gamma$ = {g:g}" if hold else None
        axes.loglog(time_steps, derived, "-" if hold else ":", color=COLOURS[g], label=label)
        style = {"ms": 3.5, "mfc": "none", "color": COLOURS[g]}
        axes.loglog(time_steps, measured, "o" if hold else "s", **style)
    axes.axhline(2, color="0.8", lw=0.8, zorder=0)
    axes.axhline(1, color="k", lw=0.8, zorder=0)
    axes.legend(title="solid: exact hold\ndotted: replanning", title_fontsize=8)
    axes.set(xlabel=r"time step $\Delta t$", ylabel="true / believed curvature")
    axes.set_title("Overshoot: steps diverge above")
