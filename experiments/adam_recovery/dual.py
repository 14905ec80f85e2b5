r"""What probing would gain: dual control of a scalar secant problem, by dynamic programming.

A learner stands where the gradient is known to be $-1$, on a quadratic whose curvature is unknown:
it is $1 \pm c$, with equal odds. It moves $N$ times. Having moved to a position $S$ it reads
$y \sim N(-1 + hS, R)$, the gradient there, and pays, of price and loss as in
`beliefnav.objective` ($\eta = k = \Delta t = 1$, no discount),

$$ \sum_{t=1}^{N} \tfrac12 (S_t - S_{t-1})^2 + \tfrac12 h S_t^2 - S_t. $$

With $p = P(h = 1 + c)$ as its belief the Bellman recursion is

$$ J_k(S, p) = \min_{S'} \; \tfrac12 (S' - S)^2 + E_p[\tfrac12 h S'^2 - S'] + W_{k-1}(S', p), \qquad
   W_k(S', p) = E_y[J_k(S', p'(y))], $$

where the reading at $S'$ tells the more about $h$ the larger $|S'|$ is. It is solved on a grid of
positions and log odds, with Gauss-Hermite quadrature over $y$. Any other policy is evaluated by the
same recursion without the minimum.

For a known curvature the plan with $k$ moves to go is $S' = S - \varphi_k(h) (hS - 1)$ with

$$ \varphi_k = \frac{h Q_k}{1 + h^2 Q_k}, \qquad Q_k = \frac1h + P_{k-1}, \quad
   P_k = \frac{Q_k}{1 + h^2 Q_k}, \quad P_0 = 0. $$

The loss is linear in $h$, given the gradient at the start. So a plan that expects to learn nothing
more is the plan for $E[h]$, however uncertain $h$ is: certainty equivalence is exact for a known
curvature and for useless readings. In between it is not, for two reasons that are told apart here:
the learner will know more later, whatever it does (*anticipation*: the readings are taken to be as
sharp as along the plan for $E[h]$, whatever is done); and its moves decide how much (*probing*).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

MOVES = 4
DISPERSIONS = (0.3, 0.5, 0.7, 0.9)
"""$c$, the coefficient of variation of the curvature."""
NOISES = tuple(float(x) for x in 10.0 ** np.arange(-3, 3.5, 0.5))
"""$R$, in units of the squared gradient at the start."""
REFERENCE = 0.9, 0.1
"""Dispersion and noise at which the refinement of the grid is checked."""
MAX_LOG_ODDS = 12.0
NUM_NODES = 32
MIDDLE, HALF_RANGE = 4.0, 6.0
"""Positions of the grid; the minimum of the flattest problem is at 10."""


class Problem(NamedTuple):
    """A prior and a noise, and the grid on which it is solved.

    Attributes:
        curvatures: the two that are possible, [2].
        noise: $R$.
        positions: [position].
        log_odds: of the second, [belief].
    """

    curvatures: Array
    noise: Array
    positions: Array
    log_odds: Array

    @property
    def odds(self) -> Array:
        """Probabilities of the two curvatures [2, belief]."""
        return jnp.stack([jax.nn.sigmoid(-self.log_odds), jax.nn.sigmoid(self.log_odds)])

    @property
    def mean(self) -> Array:
        """Mean of the curvature [belief]."""
        return self.curvatures @ self.odds

    @property
    def variance(self) -> Array:
        """Variance of the curvature [belief]."""
        return self.curvatures**2 @ self.odds - self.mean**2


class Solution(NamedTuple):
    """Costs from the start, and first moves, of every policy.

    Attributes:
        cost: policy -> expected cost with 1, 2, ... moves to go [move]; ``clairvoyant`` is told the
            curvature before it starts. What ``anticipating`` expects of readings is right for the
            last entry only.
        first_move: policy -> its first move.
    """

    cost: dict[str, np.ndarray]
    first_move: dict[str, float]

    def gain(
        self,
        policy: str = "optimal",
        over: str = "certainty-equivalent",
        num_moves: int = MOVES,
    ) -> float:
        """What a policy saves, relative to what the certainty-equivalent one improves at all."""
        cost = {name: float(each[num_moves - 1]) for name, each in self.cost.items()}
        return (cost[over] - cost[policy]) / -cost["certainty-equivalent"]


def make_problem(dispersion: float, noise: float, num_points: int, stretch: float = 1.0) -> Problem:
    """The problem of a dispersion and a noise, on a grid of positions and beliefs.

    With ``stretch`` the same number of points spans a range so many times as large.
    """
    grid = stretch * jnp.linspace(-1.0, 1.0, num_points)
    return Problem(
        curvatures=jnp.array([1.0 - dispersion, 1.0 + dispersion]),
        noise=jnp.asarray(noise, float),
        positions=MIDDLE + HALF_RANGE * grid,
        log_odds=MAX_LOG_ODDS * grid,
    )


def solve_all(
    num_points: int, dispersions: Sequence[float], noises: Sequence[float]
) -> dict[tuple[float, float], Solution]:
    """(Dispersion, noise) -> solution of the problem."""
    settings = [(c, r) for c in dispersions for r in noises]
    bar = tqdm(settings, desc="dual control")
    return {(c, r): solve(make_problem(c, r, num_points)) for c, r in bar}


def solve(problem: Problem) -> Solution:
    """The optimal policy and the others, from the start."""
    cost, first_move = _solve(problem)
    return Solution(jax.tree.map(np.asarray, cost), jax.tree.map(float, first_move))


@jax.jit
def _solve(problem: Problem) -> tuple[dict[str, Array], dict[str, Array]]:
    s = problem.positions
    moves = {
        name: jnp.stack([_follow(problem, gain) for gain in plan(problem)])
        for name, plan in PLANS.items()
    }
    moves["averaged"] = averaged_targets(problem)
    here = jnp.broadcast_to(s, (MOVES, len(s)))
    nominal = _nominal_path(problem, _on_mean(problem))
    moves["anticipating"], moves["optimal"] = jax.lax.map(
        partial(_minimise, problem), jnp.stack([jnp.broadcast_to(nominal, here.shape), here])
    )
    values = jax.lax.map(partial(_evaluate, problem), jnp.stack(list(moves.values())))
    start = jnp.zeros(())

    def at_start(table: Array) -> Array:
        return _interpolate(_interpolate(table.T, s, start), problem.log_odds, start)

    every = jax.vmap(at_start)
    cost = {name: every(value) for name, value in zip(moves, values, strict=True)}
    first_move = {name: at_start(targets[-1]) for name, targets in moves.items()}
    count = jnp.arange(1, MOVES + 1)
    known = [count / (2 * h) - jnp.stack(_riccati(h)[1]) / 2 for h in problem.curvatures]
    cost["clairvoyant"] = -(known[0] + known[1]) / 2
    return cost, first_move


def _riccati(curvature: Array) -> tuple[list[Array], list[Array]]:
    """Gains of the plan for a known curvature and P, with 1, 2, ... moves to go."""
    gains, values = [], []
    value = jnp.zeros_like(curvature)
    for _ in range(MOVES):
        q = 1 / curvature + value
        value = q / (1 + curvature**2 * q)
        gains.append(curvature * value)
        values.append(value)
    return gains, values


def _on_mean(problem: Problem) -> list[Array]:
    return _riccati(problem.mean)[0]


def _cautious(problem: Problem) -> list[Array]:
    return _riccati(jnp.sqrt(problem.mean**2 + problem.variance))[0]


def _myopic(problem: Problem) -> list[Array]:
    return [_on_mean(problem)[0]] * MOVES


PLANS: dict[str, Callable[[Problem], list[Array]]] = {
    "certainty-equivalent": _on_mean,
    "cautious": _cautious,
    "myopic Bayes": _myopic,
}
"""Gain of the mean gradient, at every belief, with 1, 2, ... moves to go."""


def _follow(problem: Problem, gain: Array) -> Array:
    """Where a gain leads [position, belief]."""
    s = problem.positions[:, None]
    return s - gain[None] * (problem.mean[None] * s - 1)


def averaged_targets(problem: Problem) -> Array:
    """Where the average of the plans of both curvatures leads [move, position, belief].

    The gradient $hS - 1$ depends on the curvature as the gain does: what is averaged is their
    product.
    """
    s, odds = problem.positions[:, None], problem.odds[:, None]
    each = [[s - gain * (h * s - 1) for gain in _riccati(h)[0]] for h in problem.curvatures]
    return jnp.stack([odds[0] * low + odds[1] * high for low, high in zip(*each, strict=True)])


def _nominal_path(problem: Problem, gains: list[Array]) -> Array:
    """Where the certainty-equivalent move with 1, 2, ... to go leads if nothing is learned."""
    middle = len(problem.log_odds) // 2
    position, path = jnp.zeros(()), []
    for gain in reversed(gains):
        position = position - gain[middle] * (problem.mean[middle] * position - 1)
        path.append(position)
    return jnp.stack(path[::-1])[:, None]


def _stage(problem: Problem, position: Array) -> Array:
    """Expected loss [position, belief] at positions [position, belief] or [position, 1]."""
    return problem.mean[None] * position**2 / 2 - position


def _after_reading(problem: Problem, value: Array, read_at: Array) -> Array:
    """Expected value [position, belief] after a reading at ``read_at`` [position]."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NUM_NODES)
    weights = jnp.asarray(weights / weights.sum(), value.dtype)
    low, high = problem.curvatures
    distance = (high - low) * read_at / jnp.sqrt(problem.noise)
    odds = problem.odds

    def at_position(row: Array, d: Array) -> Array:
        moved = d * jnp.asarray(nodes, row.dtype)
        result = jnp.zeros_like(row)
        for i, drift in enumerate((-(d**2) / 2, d**2 / 2)):
            learned = problem.log_odds[:, None] + drift + moved[None]
            result += odds[i] * (_interpolate(row, problem.log_odds, learned) @ weights)
        return result

    return jax.lax.map(lambda x: at_position(*x), (value, distance), batch_size=16)


def _minimise(problem: Problem, read_at: Array) -> Array:
    """Optimal targets [move, position, belief] with 1, 2, ... moves to go.

    Whoever is at a position believes that readings are made at ``read_at`` [move, position].
    """
    s = problem.positions

    def bellman(value: Array, read_at: Array) -> tuple[Array, Array]:
        expected = _stage(problem, s[:, None]) + _after_reading(problem, value, read_at)
        value, target = jax.lax.map(partial(_best, s), expected.T, batch_size=8)
        return value.T, target.T

    return jax.lax.scan(bellman, _no_cost(problem), read_at)[1]


def _best(s: Array, expected: Array) -> tuple[Array, Array]:
    """Least of $(S'-S)^2/2 + f(S')$ for every S, and where: on the grid, then on a parabola."""
    total = (s[None, :] - s[:, None]) ** 2 / 2 + expected[None, :]
    middle = jnp.clip(jnp.argmin(total, 1), 1, len(s) - 2)[:, None]
    before, at, after = (jnp.take_along_axis(total, middle + i, 1)[:, 0] for i in (-1, 0, 1))
    bend = before - 2 * at + after
    offset = jnp.clip((before - after) / (2 * jnp.where(bend > 0, bend, 1)), -1, 1)
    offset = jnp.where(bend > 0, offset, 0)
    least = at - offset * (before - after) / 4
    return least, s[middle[:, 0]] + offset * (s[1] - s[0])


def _evaluate(problem: Problem, targets: Array) -> Array:
    """Expected costs [move, position, belief] of a policy that moves to ``targets``."""
    s = problem.positions

    def back(value: Array, target: Array) -> tuple[Array, Array]:
        later = _after_reading(problem, value, s)
        later = jax.vmap(lambda f, x: _interpolate(f, s, x), (1, 1), 1)(later, target)
        value = (target - s[:, None]) ** 2 / 2 + _stage(problem, target) + later
        return value, value

    return jax.lax.scan(back, _no_cost(problem), targets)[1]


def _no_cost(problem: Problem) -> Array:
    return jnp.zeros((len(problem.positions), len(problem.log_odds)))


def _interpolate(values: Array, grid: Array, x: Array) -> Array:
    """Linear interpolation [..., grid] on an even grid, constant beyond it."""
    where = jnp.clip((x - grid[0]) / (grid[1] - grid[0]), 0, len(grid) - 1)
    below = jnp.minimum(where.astype(int), len(grid) - 2)
    share = where - below
    return (1 - share) * values[..., below] + share * values[..., below + 1]


class Checks(NamedTuple):
    """What must come out of the dynamic programming.

    Attributes:
        known: gain of dual control over certainty equivalence if the curvature is known.
        useless: the same if readings are nothing but noise.
        reference: the same at `REFERENCE`.
        refinement: by how much that changes on a grid that is half as fine and twice as wide.
        by_moves: number of moves -> the gain at `REFERENCE`.
    """

    known: float
    useless: float
    reference: float
    refinement: float
    by_moves: dict[int, float]


def check(num_points: int) -> Checks:
    """Solve the problems whose solution is known, and one on a finer grid."""
    dispersion, noise = REFERENCE
    reference = solve(make_problem(dispersion, noise, num_points))
    coarser = solve(make_problem(dispersion, noise, num_points, stretch=2.0))
    return Checks(
        known=solve(make_problem(0.0, noise, num_points)).gain(),
        useless=solve(make_problem(dispersion, 1e6, num_points)).gain(),
        reference=reference.gain(),
        refinement=abs(coarser.gain() - reference.gain()),
        by_moves={n: reference.gain(num_moves=n) for n in range(1, MOVES + 1)},
    )
