"""Slow, obvious oracles in float64 numpy and scipy: they share no code with what they check.

All of them take one stream of one entry, [step]; `per_entry` maps them over a recorded array.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, interpolate, linalg, optimize, sparse, special, stats
from scipy.sparse import linalg as sparse_linalg

Floats = NDArray[np.float64]

# --- streams ------------------------------------------------------------------------------------


def random_stream(seed: int, num_steps: int, missing: float = 0.3) -> dict[str, Any]:
    """A tree of recorded gradients with NaN and infinite entries."""
    rng = np.random.default_rng(seed)

    def leaf(*shape: int) -> Floats:
        values = rng.normal(0.3, 1.5, (num_steps, *shape))
        holes = rng.random(values.shape) < missing
        return np.where(holes, rng.choice([np.nan, np.inf, -np.inf], values.shape), values)

    return {"matrix": leaf(3, 2), "nested": [leaf()]}


def per_entry(oracle: Callable[[Floats], Any], recorded: Any) -> Floats:
    """``oracle`` of each entry's stream: [step, ...] -> [its own shape, ...]."""
    return np.apply_along_axis(oracle, 0, np.asarray(recorded, np.float64))


def discounted(values: Floats, discount: float, prior: float = 0.0) -> Floats:
    r"""$\beta^t x_0 + \sum_{k \le t} \beta^{t-k} x_k$ for every t, summed out."""
    num_steps = len(values)
    return np.array(
        [
            prior * discount ** (t + 1) + sum(values[k] * discount ** (t - k) for k in range(t + 1))
            for t in range(num_steps)
        ]
    )


# --- Gaussian models ----------------------------------------------------------------------------


class Gaussian(NamedTuple):
    """Everything about a linear-Gaussian stream, by conditioning the joint distribution.

    Latents are [1 + step]: the one before the first observation comes first in ``smoothed_*``.
    """

    filtered_mean: Floats
    filtered_variance: Floats
    smoothed_mean: Floats
    smoothed_covariance: Floats
    log_likelihood: float

    @property
    def filtered(self) -> Floats:
        """Filtered mean and variance, [2, step]."""
        return np.stack([self.filtered_mean, self.filtered_variance])

    def path_log_density(self, path: Floats) -> float:
        """The log posterior density of a whole latent path [1 + step]."""
        return _log_density(path - self.smoothed_mean, self.smoothed_covariance)


def _log_density(error: Floats, covariance: Floats) -> float:
    """The log density of a Gaussian of mean zero."""
    sign, log_determinant = np.linalg.slogdet(2 * np.pi * covariance)
    assert sign == 1
    return float(-(error @ np.linalg.solve(covariance, error) + log_determinant) / 2)


def _condition(
    mean: Floats, covariance: Floats, noise_variance: float, y: Floats
) -> tuple[Floats, Floats, float]:
    """Posterior of all latents given the finite entries of y, and their log density."""
    seen = 1 + np.flatnonzero(np.isfinite(y))
    values = y[seen - 1]
    marginal = covariance[np.ix_(seen, seen)] + noise_variance * np.eye(len(seen))
    weights = np.linalg.solve(marginal, covariance[seen]).T
    error = values - mean[seen]
    posterior = covariance - weights @ covariance[seen]
    return mean + weights @ error, (posterior + posterior.T) / 2, _log_density(error, marginal)


def _gaussian(mean: Floats, covariance: Floats, noise_variance: float, y: Floats) -> Gaussian:
    means, variances = [], []
    for t in range(len(y)):
        until_now = np.where(np.arange(len(y)) <= t, y, np.nan)
        m, v, _ = _condition(mean, covariance, noise_variance, until_now)
        means.append(m[t + 1])
        variances.append(v[t + 1, t + 1])
    smoothed = _condition(mean, covariance, noise_variance, y)
    return Gaussian(np.array(means), np.array(variances), *smoothed)


def ornstein_uhlenbeck_covariance(num_latents: int, rho: float, q: float) -> Floats:
    """The stationary covariance of the gradient, [latent, latent]."""
    steps = np.arange(num_latents)
    return q / (1 - rho**2) * rho ** np.abs(steps[:, None] - steps)


def ornstein_uhlenbeck(y: Floats, rho: float, q: float, noise_variance: float) -> Gaussian:
    """Stationary Ornstein-Uhlenbeck gradient."""
    covariance = ornstein_uhlenbeck_covariance(1 + len(y), rho, q)
    return _gaussian(np.zeros(1 + len(y)), covariance, noise_variance, y)


def local_level_covariance(seen: NDArray[np.bool_], discount: float, n0: float) -> Floats:
    r"""Covariance of the level in units of R: $1/n_0 + \sum_{k \le \min(i, j)} W_k$."""
    c = 1 / n0
    variances = [c]
    for observed in seen:
        w = c * (1 - discount) / discount
        variances.append(variances[-1] + w)
        c = (c + w) / (c + w + 1) if observed else c + w
    steps = np.arange(len(variances))
    return np.array(variances)[np.minimum(steps[:, None], steps)]


def local_level(
    y: Floats, discount: float, noise_variance: float, m0: float, n0: float
) -> Gaussian:
    """Local level with discount from a proper prior."""
    covariance = noise_variance * local_level_covariance(np.isfinite(y), discount, n0)
    return _gaussian(np.full(1 + len(y), m0), covariance, noise_variance, y)


def local_level_conditioned(y: Floats, discount: float, noise_variance: float) -> Gaussian:
    """Local level given its first observation: what follows starts from N(y_1, R)."""
    return local_level(y[1:], discount, noise_variance, y[0], 1.0)


# --- precision walk -----------------------------------------------------------------------------


class Precision(NamedTuple):
    r"""$\phi_t \sim \Gamma(n_t/2, S_t/2)$ after every observation, by the defining sums."""

    degrees_of_freedom: Floats
    sum_of_squares: Floats
    log_densities: Floats


def precision_walk(y: Floats, discount: float, s0: float, n0: float) -> Precision:
    """The sums, and the Student-t predictive density where it is proper."""
    seen = np.isfinite(y)
    n = discounted(seen.astype(float), discount, n0)
    total = discounted(np.where(seen, y, 0) ** 2, discount, s0)
    before_n = discount * np.concatenate([[n0], n[:-1]])
    before_s = discount * np.concatenate([[s0], total[:-1]])
    log_densities = np.zeros(len(y))
    for t in np.flatnonzero(seen & (before_n > 0) & (before_s > 0)):
        scale = np.sqrt(before_s[t] / before_n[t])
        log_densities[t] = stats.t.logpdf(y[t], before_n[t], scale=scale)
    return Precision(n, total, log_densities)


class PrecisionGrid(NamedTuple):
    """Moments of the final precision, and the log marginal likelihood."""

    mean: float
    variance: float
    log_likelihood: float


def precision_walk_grid(y: Floats, discount: float, s0: float, n0: float) -> PrecisionGrid:
    r"""The walk as it is defined, integrated numerically on a grid of $u = \log \phi$.

    The expectation over the shock is Gauss-Jacobi quadrature; between grid points the log density
    is a spline. Only the parameters of the shock come from the model's sample sizes.
    """
    centre = np.log(n0 / s0)
    u = np.linspace(centre - 40, centre + 5, 9001)
    log_density = stats.gamma.logpdf(np.exp(u), n0 / 2, scale=2 / s0) + u
    n, log_likelihood = n0, 0.0
    for value in y:
        a, b = discount * n / 2, (1 - discount) * n / 2
        with np.errstate(invalid="ignore"):  # scipy evaluates a branch that it does not use
            nodes, weights = special.roots_jacobi(80, b - 1, a - 1)
        shocks, weights = (1 + nodes) / 2, weights / weights.sum()
        spline = interpolate.CubicSpline(u, log_density)
        density = np.zeros_like(u)
        for shock, weight in zip(shocks, weights, strict=True):
            source = u + np.log(discount) - np.log(shock)
            inside = (source >= u[0]) & (source <= u[-1])
            density[inside] += weight * np.exp(np.maximum(spline(source[inside]), -700))
        log_density = np.log(np.maximum(density, 1e-300))
        n = discount * n
        if np.isfinite(value):
            log_density = log_density + stats.norm.logpdf(value, scale=np.exp(-u / 2))
            evidence = integrate.simpson(np.exp(log_density), x=u)
            log_density = log_density - np.log(evidence)
            log_likelihood += np.log(evidence)
            n = n + 1
    weight = np.exp(log_density)
    mean = integrate.simpson(weight * np.exp(u), x=u)
    square = integrate.simpson(weight * np.exp(2 * u), x=u)
    return PrecisionGrid(float(mean), float(square - mean**2), float(log_likelihood))


def precision_path_log_density(path: Floats, y: Floats, discount: float, s0: float, n0: float):
    r"""The log posterior density of a whole path of precisions $\phi_0, \ldots, \phi_T$.

    Backwards in time the gamma-beta walk is $\phi_{t-1} = \beta \phi_t + \Gamma((1-\beta)
    n_{t-1}/2, S_{t-1}/2)$, independent of $\phi_t$.
    """
    sums = precision_walk(y, discount, s0, n0)
    n = np.concatenate([[n0], sums.degrees_of_freedom])
    s = np.concatenate([[s0], sums.sum_of_squares])
    total = stats.gamma.logpdf(path[-1], n[-1] / 2, scale=2 / s[-1])
    rest = path[:-1] - discount * path[1:]
    return total + stats.gamma.logpdf(rest, (1 - discount) * n[:-1] / 2, scale=2 / s[:-1]).sum()


# --- Wiener average -----------------------------------------------------------------------------


def wiener(y: Floats, discount: float, curvature_discount: float) -> Floats:
    """Posterior mean, variance and curvature [3, step] of a complete stream, by weighted sums."""
    rows = []
    for t in range(len(y)):
        ages = t - np.arange(t + 1)
        weights = discount**ages
        average = np.sum(weights * y[: t + 1]) / np.sum(weights)
        square_weights = curvature_discount**ages
        second_moment = np.sum(square_weights * y[: t + 1] ** 2) / np.sum(square_weights)
        effective_size = np.sum(weights) ** 2 / np.sum(weights**2)
        noise = max(second_moment - average**2, 0) / effective_size
        signal = max(average**2 - noise, 0)
        factor = signal / (signal + noise)
        rows.append([factor * average, factor * noise, second_moment])
    return np.array(rows).T


# --- planning -----------------------------------------------------------------------------------


def planning_gain(
    curvature: float,
    rate: float,
    gain: float,
    discount: float,
    time_step: float,
    metric: float,
    exact_hold: bool,
) -> float:
    r"""The first step of the discounted LQ problem with loss $\theta + V \theta^2 / 2$, from 0.

    A Riccati solver gives the quadratic part of the value, a linear equation its linear part, and a
    matrix exponential follows the closed loop for the time step.
    """
    # Discounting shifts the dynamics by -gamma/2 (0 there is a rate of decay too slow to be seen).
    shift = np.array([[-discount / 2]])
    price = np.array([[metric / rate]])
    p = linalg.solve_continuous_are(shift, np.eye(1), np.array([[gain * curvature]]), price)[0, 0]
    mobility = rate / metric
    s = gain / (discount + mobility * p)
    if not exact_hold:
        return time_step * mobility * s
    loop = np.array([[-mobility * p, -mobility * s], [0.0, 0.0]])
    return -linalg.expm(loop * time_step)[0, 1]


def planned_path(
    curvature: float, rate: float, gain: float, discount: float, metric: float, times: Floats
) -> Floats:
    r"""The path from 0 that minimises the discretised objective, loss $\theta + V \theta^2 / 2$.

    Piecewise linear paths on the even grid ``times``, the loss by the trapezoidal rule, discounted
    in the middle of each interval; the end is free.
    """
    h = times[1] - times[0]
    middle = np.exp(-discount * (times[:-1] + times[1:]) / 2)
    kinetic = metric / rate * middle / h
    potential = gain * h * middle / 2
    diagonal = np.zeros(len(times))
    diagonal[:-1] += kinetic + potential * curvature
    diagonal[1:] += kinetic + potential * curvature
    slope = np.zeros(len(times))
    slope[:-1] += potential
    slope[1:] += potential
    # theta[0] = 0 is given: solve for the others.
    banded = np.zeros((2, len(times) - 1))
    banded[1] = diagonal[1:]
    banded[0, 1:] = -kinetic[1:]
    return np.concatenate([[0.0], linalg.solveh_banded(banded, -slope[1:])])


# --- Monte Carlo --------------------------------------------------------------------------------


def nuts(program: Callable[..., Any], gradient: Any, seed: int, num_samples: int) -> dict[str, Any]:
    """Draws [chain, draw, ...] of the latents of a NumPyro program, one chain by NUTS."""
    import jax
    from numpyro import infer

    mcmc = infer.MCMC(
        infer.NUTS(program, target_accept_prob=0.9),
        num_warmup=400,
        num_samples=num_samples,
        progress_bar=False,
    )
    mcmc.run(jax.random.key(seed), gradient)
    return {k: np.asarray(v) for k, v in mcmc.get_samples(group_by_chain=True).items()}


def standard_errors(draws: Floats, mean: Floats) -> Floats:
    """Distance of the average of draws [chain, draw, ...] from a mean, in its standard errors."""
    from numpyro.diagnostics import effective_sample_size

    size = effective_sample_size(draws)
    assert np.all(size > 400), f"too few effective draws to say anything: {size}"
    return np.abs(draws.mean((0, 1)) - mean) / (draws.std((0, 1)) / np.sqrt(size))


# --- linear-quadratic control -------------------------------------------------------------------


class LQ(NamedTuple):
    """The solution of a linear-quadratic problem over n parameters."""

    quadratic: Floats
    linear: Floats
    closed_loop: Floats
    offset: Floats


def lq_solution(
    hessian: Floats,
    center: Floats,
    gradient: Floats,
    metric: Floats,
    drift_matrix: Floats,
    drift_offset: Floats,
    rate: float,
    gain: float,
    discount: float,
) -> LQ:
    r"""Value and policy in absolute coordinates, drift $A \theta + a$: velocity = loop x + offset.

    A Schur method gives the quadratic part; $k H$ may be indefinite.
    """
    identity = np.eye(len(center))
    shifted = drift_matrix - discount / 2 * identity
    p = linalg.solve_continuous_are(shifted, identity, gain * hessian, metric / rate)
    mobility = rate * np.linalg.inv(metric)
    loop = drift_matrix - mobility @ p
    force = gain * (gradient - hessian @ center) + p @ drift_offset
    s = np.linalg.solve(discount * identity - drift_matrix.T + p @ mobility, force)
    return LQ(p, s, loop, drift_offset - mobility @ s)


def has_lq_solution(
    hessian: Floats,
    metric: Floats,
    drift_matrix: Floats,
    rate: float,
    gain: float,
    discount: float,
    gap: float,
) -> bool:
    """Whether no eigenvalue of the Hamiltonian matrix is within ``gap`` of the imaginary axis."""
    shifted = drift_matrix - discount / 2 * np.eye(len(hessian))
    hamiltonian = np.block(
        [[shifted, -rate * np.linalg.inv(metric)], [-gain * hessian, -shifted.T]]
    )
    return bool(np.abs(np.linalg.eigvals(hamiltonian).real).min() > gap)


def lq_path(
    start: Floats,
    hessian: Floats,
    center: Floats,
    gradient: Floats,
    metric: Floats,
    drift_matrix: Floats,
    drift_offset: Floats,
    rate: float,
    gain: float,
    discount: float,
    times: Floats,
) -> Floats:
    r"""The path [time, n] that minimises the discretised objective, from a given start.

    Straight between the points of the even grid ``times``, cost and discount read in the middle of
    each interval; the end is free. The normal equations of one sparse least-squares problem.
    """
    n, h = len(start), times[1] - times[0]
    num_intervals = len(times) - 1
    weight: Any = sparse.diags(h * np.exp(-discount * (times[:-1] + times[1:]) / 2))
    before = sparse.eye(num_intervals, num_intervals + 1)
    after = sparse.eye(num_intervals, num_intervals + 1, k=1)
    middle = sparse.kron((before + after) / 2, np.eye(n))
    control = sparse.kron((after - before) / h, np.eye(n)) - sparse.kron(
        (before + after) / 2, drift_matrix
    )
    kinetic = sparse.kron(weight, metric / rate)
    potential = sparse.kron(weight, gain * hessian)
    ones = np.ones(num_intervals)
    quadratic = (control.T @ kinetic @ control + middle.T @ potential @ middle).tocsc()
    linear = control.T @ kinetic @ np.kron(ones, drift_offset) - middle.T @ np.kron(
        weight @ ones, gain * (gradient - hessian @ center)
    )
    # theta[0] is given: solve for the others.
    rest: Any = sparse_linalg.spsolve(quadratic[n:, n:], linear[n:] - quadratic[n:, :n] @ start)
    return np.concatenate([start, rest]).reshape(-1, n)


# --- paths --------------------------------------------------------------------------------------


def path_action(
    lagrangian: Callable[[Any, Any], Any],
    path: Any,
    duration: float,
    discount: float = 0.0,
    node: float = 0.5,
) -> Any:
    """The discretised cost of paths [..., time, n], of which complex ones are welcome.

    ``lagrangian`` maps places and velocities [..., n] to costs [...].
    """
    num_intervals = path.shape[-2] - 1
    h = duration / num_intervals
    total = 0.0
    for i in range(num_intervals):
        before, after = path[..., i, :], path[..., i + 1, :]
        running = lagrangian((1 - node) * before + node * after, (after - before) / h)
        total = total + h * np.exp(-discount * h * (i + node)) * running
    return total


def path_gradient(cost: Callable[[Any], Any], path: Floats) -> Floats:
    """Gradient [time, n] of an analytic cost of paths [..., time, n], by steps of 1e-30 i."""
    steps = 1e-30j * np.eye(path.size).reshape(-1, *path.shape)
    return (cost(path + steps).imag / 1e-30).reshape(path.shape)


def path_curvature(cost: Callable[[Any], Any], path: Floats, weights: Floats) -> Floats:
    """Eigenvalues of the Hessian over some weights [time] of its rows; held points weigh inf."""
    scale = np.repeat(1 / np.sqrt(weights), path.shape[1])
    free = np.flatnonzero(scale)
    rows = []
    for k in free:
        step = 1e-5 * np.eye(path.size)[k].reshape(path.shape)
        change = path_gradient(cost, path + step) - path_gradient(cost, path - step)
        rows.append(scale[k] * scale[free] * change.ravel()[free] / 2e-5)
    hessian = np.array(rows)
    return np.asarray(np.linalg.eigvalsh((hessian + hessian.T) / 2), np.float64)


def least_action(cost: Callable[[Any], Any], guess: Floats, free: slice) -> Floats:
    """The path [time, n] that BFGS finds from a guess, moving the ``free`` points of it."""

    def full(x: Any) -> Floats:
        path = guess.copy()
        path[free] = x.reshape(path[free].shape)
        return path

    found = optimize.minimize(
        lambda x: cost(full(x)),
        guess[free].ravel(),
        jac=lambda x: path_gradient(cost, full(x))[free].ravel(),
        method="BFGS",
        options={"gtol": 1e-9, "maxiter": 2000},
    )
    assert np.linalg.norm(found.jac) < 1e-6, found.message
    return full(found.x)


# --- linear-Gaussian models of several variables ------------------------------------------------


def regression(covariance: Floats, d: int) -> tuple[Floats, Floats]:
    """Of the first d variables on the others: the gain [d, others], and the covariance left."""
    gain = np.asarray(np.linalg.solve(covariance[d:, d:], covariance[d:, :d]).T, np.float64)
    return gain, covariance[:d, :d] - gain @ covariance[d:, :d]


class LinearModel(NamedTuple):
    """A linear-Gaussian stream of one entry: d latents a step, no transition before the first.

    ``readings`` are rows, values (NaN or infinite where missing) and noise variances of every step.
    """

    mean: Floats  # [d]
    covariance: Floats  # [d, d]
    matrices: Floats  # [step - 1, d, d]
    offsets: Floats  # [step - 1, d]
    noises: Floats  # [step - 1, d, d]
    readings: list[list[tuple[Any, Any, Any]]]


class Joint(NamedTuple):
    """Everything about a `LinearModel`, by conditioning the joint Gaussian of all latents."""

    filtered_mean: Floats  # [step, d]
    filtered_covariance: Floats  # [step, d, d]
    smoothed_mean: Floats  # [step, d]
    smoothed_covariance: Floats  # [step, d, step, d]
    log_likelihood: Floats
    surprise: Floats  # squared distance of all readings from their mean, in their covariance
    num_readings: Floats

    def read(self, matrix: Floats, offsets: Floats) -> "Joint":
        """The same of k linear functions of the latents, [k, d], with offsets [step, k]."""
        return self._replace(
            filtered_mean=self.filtered_mean @ matrix.T + offsets,
            filtered_covariance=matrix @ self.filtered_covariance @ matrix.T,
            smoothed_mean=self.smoothed_mean @ matrix.T + offsets,
            smoothed_covariance=np.einsum(
                "ia,saub,jb->siuj", matrix, self.smoothed_covariance, matrix
            ),
        )


def joint(model: LinearModel) -> Joint:
    """Condition the joint Gaussian of all latents on the readings until each step, and on all."""
    num_steps, d = len(model.readings), len(model.mean)
    mean = np.zeros((num_steps, d))
    covariance = np.zeros((num_steps, d, num_steps, d))
    mean[0], covariance[0, :, 0] = model.mean, model.covariance
    for t in range(1, num_steps):
        step, noise = model.matrices[t - 1], model.noises[t - 1]
        mean[t] = step @ mean[t - 1] + model.offsets[t - 1]
        covariance[t, :, :t] = np.einsum("ij,jsk->isk", step, covariance[t - 1, :, :t])
        covariance[:t, :, t] = covariance[t, :, :t].transpose(1, 2, 0)
        covariance[t, :, t] = step @ covariance[t - 1, :, t - 1] @ step.T + noise

    def given(until: int) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Mean and covariance of all latents, log density, surprise and number of readings."""
        rows, values, noises = [], [], []
        for t in range(until + 1):
            for row, value, noise in model.readings[t]:
                if np.isfinite(value):
                    rows.append(np.kron(np.eye(num_steps)[t], row))
                    values.append(value)
                    noises.append(noise)
        m, c = mean.ravel(), covariance.reshape(num_steps * d, -1)
        if rows:
            h, noise = np.array(rows), np.diag(noises)
            marginal = h @ c @ h.T + noise
            weights = np.linalg.solve(marginal, h @ c).T
            error = np.array(values) - h @ m
            log_density = _log_density(error, marginal)
            surprise = error @ np.linalg.solve(marginal, error)
            # Joseph's form: an error in the weights enters squared.
            rest = np.eye(len(m)) - weights @ h
            m, c = m + weights @ error, rest @ c @ rest.T + weights @ noise @ weights.T
        else:
            log_density = surprise = 0.0
        return (
            m.reshape(num_steps, d),
            c.reshape(num_steps, d, num_steps, d),
            np.array(log_density),
            np.array(surprise),
            np.array(len(rows)),
        )

    until = [given(t)[:2] for t in range(num_steps)]
    filtered_mean = np.array([m[t] for t, (m, _) in enumerate(until)])
    filtered_covariance = np.array([c[t, :, t] for t, (_, c) in enumerate(until)])
    return Joint(filtered_mean, filtered_covariance, *given(num_steps - 1))


def student_log_likelihood(unit: Joint, scale: float, degrees: float) -> Floats:
    r"""Of the readings if all variances are in units of $\sigma^2$, `stats.invgamma` of
    $\nu_0/2$ and scale $\nu_0 s_0^2/2$: a Student-t, from the joint in those units."""
    n, total = unit.num_readings, degrees * scale
    half_log_determinant = -unit.log_likelihood - (unit.surprise + n * np.log(2 * np.pi)) / 2
    return (
        special.gammaln((degrees + n) / 2)
        - special.gammaln(degrees / 2)
        - n / 2 * np.log(np.pi * total)
        - half_log_determinant
        - (degrees + n) / 2 * np.log1p(unit.surprise / total)
    )


def joint_per_entry(oracle: Callable[..., Joint], *recorded: Any) -> Joint:
    """``oracle`` of the streams [step, ...] of each entry; its fields get the axes of an entry."""
    streams = [None if y is None else np.asarray(y, np.float64) for y in recorded]
    first = streams[0]
    assert first is not None
    entries = [
        oracle(*(None if y is None else y[:, *index] for y in streams))
        for index in np.ndindex(first.shape[1:])
    ]

    def stack(*values: Floats) -> Floats:
        stacked = np.stack(values, -1)
        return stacked.reshape(*stacked.shape[:-1], *first.shape[1:])

    return Joint(*map(stack, *entries))


def ornstein_uhlenbeck_model(
    y: Floats, *, autocorrelation: float, process_variance: float, noise_variance: float
) -> LinearModel:
    """The gradient, from its stationary distribution."""
    n = len(y) - 1
    return LinearModel(
        np.zeros(1),
        np.full((1, 1), process_variance / (1 - autocorrelation**2)),
        np.full((n, 1, 1), autocorrelation),
        np.zeros((n, 1)),
        np.full((n, 1, 1), process_variance),
        [[([1.0], value, noise_variance)] for value in y],
    )


def local_level_model(
    y: Floats,
    *,
    discount: float,
    noise_variance: float,
    prior_mean: float,
    prior_sample_size: float,
) -> LinearModel:
    """The level, whose drift is what `local_level_covariance` grows by."""
    sizes = local_level_covariance(np.isfinite(y), discount, prior_sample_size)
    variances = noise_variance * np.diag(sizes)[1:]
    n = len(y) - 1
    return LinearModel(
        np.full(1, prior_mean),
        np.full((1, 1), variances[0]),
        np.ones((n, 1, 1)),
        np.zeros((n, 1)),
        np.diff(variances)[:, None, None],
        [[([1.0], value, noise_variance)] for value in y],
    )


def secant_model(
    y: Floats,
    displacement: Floats,
    c: Floats | None,
    *,
    noise_variance: float,
    prior_gradient_variance: float,
    prior_curvature_variance: float,
    prior_gradient_mean: float = 0.0,
    prior_curvature_mean: float = 0.0,
    gradient_process_variance: float = 0.0,
    curvature_process_variance: float = 0.0,
    gradient_autocorrelation: float = 1.0,
    curvature_autocorrelation: float = 1.0,
    curvature_noise_variance: float | None = None,
) -> LinearModel:
    """Gradient and curvature; ``displacement[t]`` leads from step t to t + 1."""
    n = len(y) - 1
    rho = curvature_autocorrelation
    readings: list[Any] = [[([1.0, 0.0], value, noise_variance)] for value in y]
    if c is not None:
        for at_step, value in zip(readings, c, strict=True):
            at_step.append(([0.0, 1.0], value, curvature_noise_variance))
    return LinearModel(
        np.array([prior_gradient_mean, prior_curvature_mean]),
        np.diag([prior_gradient_variance, prior_curvature_variance]),
        np.array([[[gradient_autocorrelation, d], [0.0, rho]] for d in displacement[:-1]]).reshape(
            n, 2, 2
        ),
        np.tile([0.0, (1 - rho) * prior_curvature_mean], (n, 1)),
        np.tile(np.diag([gradient_process_variance, curvature_process_variance]), (n, 1, 1)),
        readings,
    )


def optimum_model(
    y: Floats,
    displacement: Floats,
    *,
    curvature: float,
    noise_variance: float,
    prior_variance: float,
    prior_mean: float = 0.0,
    process_variance: float = 0.0,
    autocorrelation: float = 1.0,
) -> LinearModel:
    r"""The optimum relative to the initial parameters, $\theta^* - \theta_0$."""
    n = len(y) - 1
    position = np.concatenate([[0.0], np.cumsum(displacement)[:-1]])
    return LinearModel(
        np.full(1, prior_mean),
        np.full((1, 1), prior_variance),
        np.full((n, 1, 1), autocorrelation),
        np.full((n, 1), (1 - autocorrelation) * prior_mean),
        np.full((n, 1, 1), process_variance),
        [
            [([-curvature], value - curvature * x, noise_variance)]
            for value, x in zip(y, position, strict=True)
        ],
    )


def transient_variances(discount: float, autocorrelation: float) -> tuple[float, float]:
    r"""Of the walk and of what is new in the transient, for an ARIMA(1,1,1) of unit innovations.

    The autocovariances of $(1-\phi B) (1-B) y$ at the lags 1 and 0 are those of $(1-\theta B)$.
    """
    theta, phi = discount, autocorrelation
    # (1 - phi B) w + (1 - B) v has the variance (1 + phi^2) q_g + 2 q_e and, at lag 1, minus
    # (phi q_g + q_e).
    system = np.array([[1 + phi**2, 2.0], [phi, 1.0]])
    level, passing = np.linalg.solve(system, [1 + theta**2, theta])
    return float(level), float(passing)


def transient_model(
    y: Floats,
    *,
    discount: float,
    autocorrelation: float,
    innovation_variance: float,
    before: float = 0.0,
    transient_variance: float | None = None,
    walk_variance: float = 0.0,
) -> LinearModel:
    r"""A walk and a transient, read together without noise.

    The step before the first is known to be ``before`` up to ``walk_variance``, and of how much of
    it is transient, the variance is ``transient_variance``, by default that of the steady state.
    """
    level, passing = (
        innovation_variance * x for x in transient_variances(discount, autocorrelation)
    )
    step, noise = np.diag([1.0, autocorrelation]), np.diag([level, passing])
    row = np.ones(2)
    if transient_variance is None:
        covariance = np.eye(2)
        for _ in range(2000):
            predicted = step @ covariance @ step.T + noise
            gain = predicted @ row / (row @ predicted @ row)
            covariance = predicted - np.outer(gain, row @ predicted)
        transient_variance = float(covariance[1, 1])
    unknown = transient_variance * np.array([[1.0, -1.0], [-1.0, 1.0]])
    unknown[0, 0] += walk_variance
    n = len(y) - 1
    return LinearModel(
        step @ np.array([before, 0.0]),
        step @ unknown @ step.T + noise,
        np.tile(step, (n, 1, 1)),
        np.zeros((n, 2)),
        np.tile(noise, (n, 1, 1)),
        [[(row, value, 0.0)] for value in y],
    )


# --- unknown noise and truncation ---------------------------------------------------------------


class Secant(NamedTuple):
    """A secant landscape filtered with its covariance, arrays [step, ...] of extended precision."""

    gradient_mean: Any
    gradient_variance: Any
    curvature_mean: Any
    curvature_variance: Any
    gradient_curvature_covariance: Any
    log_density: Any
    surprise: Any
    seen: Any


def secant(model: Any, gradient: Any, displacement: Any, curvature: Any = None) -> Secant:
    """Textbook Kalman filtering, written out; ``model`` names the hyper-parameters.

    In extended precision (64 bits of mantissa), because this form cancels at small noise.
    """
    y, d = np.asarray(gradient, np.longdouble), np.asarray(displacement, np.longdouble)
    c = np.full_like(y, np.nan) if curvature is None else np.asarray(curvature, np.longdouble)

    def number(name: str) -> Any:
        value = getattr(model, name)
        return np.longdouble(np.nan) if value is None else np.asarray(value, np.longdouble)

    rho_g, rho_h = number("gradient_autocorrelation"), number("curvature_autocorrelation")
    q_g, q_h = number("gradient_process_variance"), number("curvature_process_variance")
    noise_g, noise_h = number("noise_variance"), number("curvature_noise_variance")
    mu = number("prior_curvature_mean")
    one = np.ones(y.shape[1:], np.longdouble)
    g, h = number("prior_gradient_mean") * one, mu * one
    gg, hh = number("prior_gradient_variance") * one, number("prior_curvature_variance") * one
    gh = 0 * one
    rows = []
    for t in range(len(y)):
        if t > 0:
            moved = d[t - 1]
            g, h = rho_g * g + moved * h, mu + rho_h * (h - mu)
            gg = rho_g**2 * gg + 2 * rho_g * moved * gh + moved**2 * hh + q_g
            gh, hh = rho_h * (rho_g * gh + moved * hh), rho_h**2 * hh + q_h
        log_density, surprise, count = 0 * one, 0 * one, 0 * one
        for value, of_curvature, noise in ((y[t], False, noise_g), (c[t], True, noise_h)):
            seen = np.isfinite(value)
            e = np.where(seen, value - (h if of_curvature else g), 0)
            s = np.where(seen, (hh if of_curvature else gg) + noise, 1)
            k_g = np.where(seen, (gh if of_curvature else gg) / s, 0)
            k_h = np.where(seen, (hh if of_curvature else gh) / s, 0)
            log_density += np.where(seen, -(e**2 / s + np.log(2 * np.pi * s)) / 2, 0)
            surprise, count = surprise + e**2 / s, count + seen
            g, h = g + k_g * e, h + k_h * e
            gg, gh, hh = gg - k_g * s * k_g, gh - k_g * s * k_h, hh - k_h * s * k_h
        rows.append((g, gg, h, hh, gh, log_density, surprise, count))
    return Secant(*(np.stack(column).astype(np.float64) for column in zip(*rows, strict=True)))


class UnknownNoise(NamedTuple):
    """What readings say of latents and of the unit of all variances."""

    log_likelihood: float
    noise_variance: float
    posterior: Joint  # variances in absolute units


def unknown_noise(model: LinearModel, degrees_of_freedom: float, scale: float) -> UnknownNoise:
    r"""A stream all of whose variances are in units of $\sigma^2$, which is integrated out.

    Numerically, over $u = \log \sigma^2$ with its inverse-gamma prior. Given $\sigma^2$ the mean of
    the latents does not depend on it, so that their covariance is the expected one.
    """
    unit = joint(model)

    def log_joint(u: float) -> float:
        half = degrees_of_freedom / 2
        log_prior = half * np.log(half * scale) - special.gammaln(half)
        log_prior -= half * u + half * scale * np.exp(-u)
        excess = unit.surprise * (np.exp(-u) - 1) + unit.num_readings * u
        return float(log_prior + unit.log_likelihood - excess / 2)

    found: Any = optimize.minimize_scalar(lambda u: -log_joint(u), bracket=(-1.0, 1.0))
    peak, height = float(found.x), -float(found.fun)

    def integral(power: int) -> float:
        """Of the joint density times a power of the variance, in units of those at the peak."""

        def integrand(u: float) -> float:
            return np.exp(log_joint(u) - height + power * (u - peak))

        pieces = np.array([-30.0, -3.0, 0.0, 3.0, 60.0]) + peak
        ends = zip(pieces[:-1], pieces[1:], strict=True)
        return sum(integrate.quad(integrand, a, b, epsabs=1e-14, limit=500)[0] for a, b in ends)

    evidence = integral(0)
    variance = float(np.exp(peak)) * integral(1) / evidence
    scaled = unit._replace(
        filtered_covariance=variance * unit.filtered_covariance,
        smoothed_covariance=variance * unit.smoothed_covariance,
    )
    return UnknownNoise(height + float(np.log(evidence)), variance, scaled)


# --- variational inference ----------------------------------------------------------------------


def von(
    gradient: Callable[[Floats], Floats],
    curvature: Callable[[Floats], Floats],
    start: Floats,
    noise: Floats,
    rate: float,
    prior_precision: float,
    num_examples: float,
) -> Floats:
    r"""Means [step, ...] of variational online Newton: Khan et al. 2018, equation (8).

    $s$ starts at 1. ``prior_precision`` is $\tilde\lambda = \lambda/N$, and gradient and curvature
    are of the mean loss, at $\theta_t = \mu_t + \sigma_t \epsilon_t$.
    """
    mu, s, means = start, np.ones_like(start), []
    for epsilon in noise:
        sigma = 1 / np.sqrt(num_examples * (s + prior_precision))
        theta = mu + sigma * epsilon
        s = (1 - rate) * s + rate * curvature(theta)
        mu = mu - rate * (gradient(theta) + prior_precision * mu) / (s + prior_precision)
        means.append(mu)
    return np.array(means)


def ivon(
    gradient: Callable[[Floats], Floats],
    start: Floats,
    noise: Floats,
    rate: float,
    b1: float,
    b2: float,
    weight_decay: float,
    hess_init: float,
    num_examples: float,
) -> Floats:
    r"""Means [step, ...] of IVON: Shen et al. 2024, algorithm 1, line by line, $\lambda = N$."""
    m, h, g, means = start, np.full_like(start, hess_init), np.zeros_like(start), []
    sigma = 1 / np.sqrt(num_examples * (h + weight_decay))
    for t, epsilon in enumerate(noise, start=1):
        theta = m + sigma * epsilon
        g_hat = gradient(theta)
        h_hat = g_hat * (theta - m) / sigma**2
        g = b1 * g + (1 - b1) * g_hat
        correction = (1 - b2) ** 2 * (h - h_hat) ** 2 / (h + weight_decay) / 2
        h = b2 * h + (1 - b2) * h_hat + correction
        g_bar = g / (1 - b1**t)
        m = m - rate * (g_bar + weight_decay * m) / (h + weight_decay)
        sigma = 1 / np.sqrt(num_examples * (h + weight_decay))
        means.append(m)
    return np.array(means)


# --- matrices of second moments -----------------------------------------------------------------


def power(matrix: Floats, exponent: float) -> Floats:
    """A power of a symmetric positive semi-definite matrix, on its range."""
    values, vectors = np.linalg.eigh(matrix)
    kept = values > 1e-12 * values.max()
    return vectors[:, kept] @ np.diag(values[kept] ** exponent) @ vectors[:, kept].T


def shampoo(gradients: Floats, eps: float, b1: float, b2: float) -> Floats:
    r"""Directions $L^{-1/4} \hat M R^{-1/4}$ of a stream of matrices [step, row, column]."""
    left, right = (eps * np.eye(n) for n in gradients.shape[1:])
    mean, directions = np.zeros(gradients.shape[1:]), []
    for t, y in enumerate(gradients, start=1):
        left, right = b2 * left + y @ y.T, b2 * right + y.T @ y
        mean = b1 * mean + (1 - b1) * y
        directions.append(power(left, -0.25) @ mean / (1 - b1**t) @ power(right, -0.25))
    return np.array(directions)


def full_ballistic(gradients: Floats, b1: float, b2: float, eps: float, eps_root: float) -> Floats:
    r"""Directions $((\hat V + \epsilon_r)^{1/2} + \epsilon)^{-1} \hat m$ of [step, n]."""
    size = gradients.shape[1]
    mean, moment, directions = np.zeros(size), np.zeros((size, size)), []
    for t, y in enumerate(gradients, start=1):
        mean = b1 * mean + (1 - b1) * y
        moment = b2 * moment + (1 - b2) * np.outer(y, y)
        root = power(moment / (1 - b2**t) + eps_root * np.eye(size), 0.5) + eps * np.eye(size)
        directions.append(power(root, -1.0) @ mean / (1 - b1**t))
    return np.array(directions)


# --- switching optimum --------------------------------------------------------------------------


def _log_sum(x: Any, axis: int | None = None) -> Any:
    """The logarithm of a sum of exponentials."""
    return special.logsumexp(x, axis=axis)


class Tasks(NamedTuple):
    """Hyper-parameters of a switching optimum: [param], and hazards and their odds [grid]."""

    curvature: Floats
    noise_variance: Floats
    prior_variance: Floats
    prior_mean: Floats
    hazards: Floats
    weights: Floats


def tasks(model: Any) -> Tasks:
    """The hyper-parameters that a model names."""
    hazards = getattr(model.hazard, "hazards", [model.hazard])
    weights = getattr(model.hazard, "weights", [1.0])
    named = model.curvature, model.noise_variance, model.prior_variance, model.prior_mean
    return Tasks(*(np.asarray(x, np.float64) for x in (*named, hazards, weights)))


class Segments(NamedTuple):
    """What a task that lasted from one step to another one would have shown, [begin, end, ...]."""

    mean: Floats
    variance: Floats
    log_density: Floats


class Switching(NamedTuple):
    """What is believed after every observation of a switching optimum, arrays [step, ...]."""

    mean: Floats  # of the optimum less the initial parameters
    variance: Floats
    log_density: Floats
    switch_probability: Floats
    hazard: Floats  # [step, grid]
    run_length: Floats  # [step, run length]
    dropped_mass: Floats


class Patterns(NamedTuple):
    """The posterior over all patterns of switches, given the whole stream."""

    switches: NDArray[np.bool_]  # [pattern, step], never at the first
    probability: Floats  # [pattern, grid]


def positions(displacement: Floats) -> Floats:
    """Where the parameters are at each step [step, ...], from where they began."""
    return np.concatenate([np.zeros_like(displacement[:1]), np.cumsum(displacement, 0)[:-1]])


def segments(model: Tasks, y: Floats, displacement: Floats) -> Segments:
    """Every task there may have been, by conditioning one draw of its optimum on all it showed."""
    num_steps, num_params = y.shape
    x = positions(displacement)
    mean, variance = np.full((2, num_steps, num_steps, num_params), np.nan)
    log_density = np.full((num_steps, num_steps), np.nan)
    for begin in range(num_steps):
        for end in range(begin, num_steps):
            task = slice(begin, end + 1)
            log_density[begin, end] = 0
            for i, (h, noise, v, mu) in enumerate(zip(*model[:4], strict=True)):
                seen = np.isfinite(y[task, i])
                error = y[task, i][seen] - h * (x[task, i][seen] - mu)
                precision = 1 / v + h**2 * seen.sum() / noise
                mean[begin, end, i] = mu - h * error.sum() / noise / precision
                variance[begin, end, i] = 1 / precision
                covariance = v * h**2 + noise * np.eye(seen.sum())
                log_density[begin, end] += _log_density(error, covariance)
    return Segments(mean, variance, log_density)


def switch_patterns(model: Tasks, y: Floats, displacement: Floats) -> tuple[Switching, Patterns]:
    """What is believed after each step, by summing over all patterns of switches until there."""
    num_steps = len(y)
    tasks = segments(model, y, displacement)
    prior = np.log(model.weights / model.weights.sum())
    rows: list[Any] = []
    evidence, patterns = 0.0, Patterns(np.zeros((1, 0), bool), np.ones((1, 1)))
    for t in range(num_steps):
        # Bit j of its number tells whether a pattern has a switch before step j + 1.
        later = (np.arange(2**t)[:, None] >> np.arange(t)) % 2 == 1
        switches = np.concatenate([np.zeros((2**t, 1), bool), later], 1)
        begins = np.maximum.accumulate(switches * np.arange(t + 1), 1)
        ends = np.concatenate([later, np.ones((2**t, 1), bool)], 1)
        shown = np.where(ends, tasks.log_density[begins, np.arange(t + 1)], 0).sum(1)
        count = later.sum(1)[:, None]
        # A hazard of 0 or 1 makes patterns impossible: 0 log 0 = 0.
        odds = special.xlogy(count, model.hazards) + special.xlog1py(t - count, -model.hazards)
        joint = prior + odds + shown[:, None]
        total = _log_sum(joint)
        probability = np.exp(joint - total)
        each, last = probability.sum(1), begins[:, -1]
        mean = each @ tasks.mean[last, t]
        spread = (tasks.mean[last, t] - mean) ** 2
        lengths = np.bincount(t - last, each, minlength=num_steps)
        rows.append(
            (
                mean,
                each @ (tasks.variance[last, t] + spread),
                total - evidence,
                each @ switches[:, -1],
                probability.sum(0),
                lengths,
                0.0,
            )
        )
        evidence = total
        patterns = Patterns(switches, probability)
    return Switching(*map(np.array, zip(*rows, strict=True))), patterns


def kept_run_lengths(model: Tasks, y: Floats, displacement: Floats, capacity: int) -> Switching:
    """Bayesian online change-point detection that forgets all but the likeliest run lengths."""
    num_steps, x = len(y), positions(displacement)
    new = model.prior_mean, model.prior_variance
    with np.errstate(divide="ignore"):  # a hazard of 0 or 1
        log_hazards, log_stays = np.log(model.hazards), np.log1p(-model.hazards)
    # Run length -> mean, variance, log weights [grid]: at first, a task of which nothing was seen.
    kept: dict[int, Any] = {-1: (*new, np.log(model.weights / model.weights.sum()))}
    dropped, rows = 0.0, []

    def log_sum(weights: Any, axis: int | None = None) -> Any:
        return special.logsumexp(list(weights), axis=axis)

    for t in range(num_steps):
        if t > 0:
            total = log_sum((w for _, _, w in kept.values()), axis=0)
            kept = {r: (m, v, w + log_stays) for r, (m, v, w) in kept.items()}
            kept[-1] = (*new, total + log_hazards)
        seen = np.isfinite(y[t])
        conditioned = {}
        for r, (m, v, w) in kept.items():
            h, noise = model.curvature[seen], model.noise_variance[seen]
            error = y[t][seen] - h * (x[t] - m)[seen]
            scale = np.sqrt(h**2 * v[seen] + noise)
            w = w + stats.norm.logpdf(error, scale=scale).sum()
            m, v = m.copy(), v.copy()
            m[seen] -= v[seen] * h * error / scale**2
            v[seen] *= noise / scale**2
            conditioned[r + 1] = m, v, w
        evidence = log_sum(w for _, _, w in conditioned.values())
        each = {r: log_sum(w) - evidence for r, (_, _, w) in conditioned.items()}
        of_hazards = log_sum((w for _, _, w in conditioned.values()), axis=0)
        if len(each) > capacity:
            lost = min(each, key=lambda r: each[r])
            del conditioned[lost]
            dropped += np.exp(each[lost])
        # The others of the same hazard get what is dropped, if there are any.
        left = log_sum((w for _, _, w in conditioned.values()), axis=0)
        alive = left > -np.inf
        rest = special.logsumexp(of_hazards[alive])
        gain = np.where(alive, of_hazards - rest - np.where(alive, left, 0), 0)
        kept = {r: (m, v, w + gain) for r, (m, v, w) in conditioned.items()}
        probability = np.zeros(num_steps)
        for r, (_, _, w) in kept.items():
            probability[r] = np.exp(log_sum(w))
        mean = sum(probability[r] * m for r, (m, _, _) in kept.items())
        variance = sum(probability[r] * (v + (m - mean) ** 2) for r, (m, v, _) in kept.items())
        hazard = np.exp(log_sum((w for _, _, w in kept.values()), axis=0))
        switched = np.exp(each[0]) if t > 0 else 0.0
        rows.append((mean, variance, evidence, switched, hazard, probability, dropped))
    return Switching(*map(np.array, zip(*rows, strict=True)))


def one_task(model: Tasks, y: Floats, displacement: Floats, reset: bool) -> Switching:
    r"""One Gaussian kept: the moments of two hypotheses or, to ``reset``, one that forgets.

    With densities and not their logarithms, as the equations have them.
    """
    h, noise, v0, mu, hazards, odds = model
    x, probability = positions(displacement), odds / odds.sum()
    m, v, rows = mu, v0, []
    for t in range(len(y)):
        seen = np.isfinite(y[t])
        value = np.where(seen, y[t], 0)

        def density(m: Floats, v: Floats, at: int = t, y: Floats = value, seen: Any = seen) -> Any:
            terms = stats.norm.pdf(y, h * (x[at] - m), np.sqrt(h**2 * v + noise))
            return np.where(seen, terms, 1).prod()

        def posterior(
            m: Floats, v: Floats, at: int = t, y: Floats = value, seen: Any = seen
        ) -> tuple[Floats, Floats]:
            precision = 1 / v + seen * h**2 / noise
            return (m / v + seen * h * (h * x[at] - y) / noise) / precision, 1 / precision

        p = hazards if t > 0 else 0 * hazards
        both = (1 - p) * density(m, v) + p * density(mu, v0)
        evidence = probability @ both
        pi = probability @ p * density(mu, v0) / evidence
        probability = probability * both / evidence
        (m1, v1), (m0, v0_) = posterior(m, v), posterior(mu, v0)
        nu = 1 - pi
        if not reset:
            m, v = nu * m1 + pi * m0, nu * v1 + pi * v0_ + pi * nu * (m1 - m0) ** 2
        elif nu > 0.5:
            m, v = posterior(nu * m + (1 - nu) * mu, nu**2 * v + (1 - nu**2) * v0)
        else:
            m, v = m0, v0_
        rows.append((m, v, np.log(evidence), pi, probability, np.nan, 0.0))
    return Switching(*map(np.array, zip(*rows, strict=True)))


def steady_linear_error(
    gain: float, autocorrelation: float, hazard: float, noise: float, variance: float
) -> float:
    r"""Long-run mean square error of $m_t = K \sum_j a^j z_{t-j}$, $a = \rho (1 - K)$.

    $z$ is the switching optimum, of autocovariance $v_0 (1 - p)^{|k|}$, seen with noise.
    """
    a, rho = autocorrelation * (1 - gain), 1 - hazard
    # sum_ij a^(i+j) rho^|i-j| = (1 + a rho) / ((1 - a^2) (1 - a rho)).
    square = variance * (1 + a * rho) / ((1 - a**2) * (1 - a * rho)) + noise / (1 - a**2)
    return gain**2 * square - 2 * gain * variance / (1 - a * rho) + variance


def switching_streams(
    seed: int, num_steps: int, num_streams: int, hazard: float, noise: float, variance: float
) -> tuple[Floats, Floats]:
    """Optima of mean zero that switch, and gradients $-\\theta^* + N(0, R)$: [step, stream]."""
    rng = np.random.default_rng(seed)
    shape = num_steps, num_streams
    switches = rng.random(shape) < hazard
    drawn = rng.normal(0, np.sqrt(variance), shape)
    begins = np.maximum.accumulate(switches * np.arange(num_steps)[:, None], 0)
    optimum = np.take_along_axis(drawn, begins, 0)
    return optimum, rng.normal(-optimum, np.sqrt(noise))


def switching_recording(model: Any, seed: int, num_steps: int) -> tuple[Floats, Floats]:
    """Gradients [step, param] of tasks that switch often, with holes, and displacements."""
    h, noise, v0, mu = tasks(model)[:4]
    rng = np.random.default_rng(seed)
    shape = num_steps, len(h)
    displacement = rng.normal(0, 0.5, shape)
    begins = np.maximum.accumulate((rng.random(num_steps) < 0.25) * np.arange(num_steps))
    optimum = rng.normal(mu, np.sqrt(v0), shape)[begins]
    y = rng.normal(h * (positions(displacement) - optimum), np.sqrt(noise))
    y = np.where(rng.random(shape) < 0.2, rng.choice([np.nan, np.inf, -np.inf], shape), y)
    y[num_steps // 2] = np.nan  # one step without anything
    return y, displacement


# --- anticipation -------------------------------------------------------------------------------


class Follower(NamedTuple):
    r"""The linear policy $\dot\theta = -A\theta + Bx + c$ of an optimum $x$ that is seen."""

    rate: Floats
    pull: Floats
    offset: Floats


def switching_cost(
    policy: Follower,
    hessian: Floats,
    hazard: float,
    metric: Floats,
    rate: float,
    gain: float,
    discount: float,
    prior_mean: Floats,
    start: Floats,
) -> Any:
    r"""The exact $J$ of a policy, where $x$ jumps at a rate to draws of unit covariance.

    The moments $M = \int e^{-\gamma t} E[z z^\top] dt$ of $z = (\theta, x, 1)$ solve a linear
    system: $z$ drifts with $F$, and jumps to $K z$ plus noise $Q$. They start as ``start``.
    """
    n, size = len(hessian), 2 * len(hessian) + 1
    follow = np.hstack([-policy.rate, policy.pull, policy.offset[:, None]])
    drift = np.vstack([follow, np.zeros((n + 1, size))])
    jump, noise = np.eye(size), np.zeros((size, size))
    jump[n:-1, n:-1], jump[n:-1, -1], noise[n:-1, n:-1] = 0, prior_mean, np.eye(n)
    one = np.eye(size)
    outflow = (discount + hazard) * np.kron(one, one) - hazard * np.kron(jump, jump)
    outflow = outflow - np.kron(drift, one) - np.kron(one, drift)
    source = start + hazard * noise / discount
    moments = np.linalg.solve(outflow, source.ravel()).reshape(size, size)
    apart = np.hstack([np.eye(n), -np.eye(n), np.zeros((n, 1))])
    cost = gain / 2 * apart.T @ hessian @ apart + follow.T @ metric @ follow / (2 * rate)
    return np.sum(cost * moments)


def cheapest_follower(
    hessian: Floats,
    hazard: float,
    metric: Floats,
    rate: float,
    gain: float,
    discount: float,
    prior_mean: Floats,
) -> Follower:
    r"""The linear policy of least `switching_cost`, by minimisation over all its entries."""
    n = len(hessian)
    # All that a policy could respond to varies at the start, so that one policy is the best.
    root = np.random.default_rng(0).normal(size=(2 * n + 1, 2 * n + 1))
    root[-1] = np.eye(2 * n + 1)[-1]
    start = root @ root.T

    def policy(x: Any) -> Follower:
        return Follower(x[: n * n].reshape(n, n), x[n * n : -n].reshape(n, n), x[-n:])

    def cost(x: Any) -> Any:
        if np.linalg.eigvals(-policy(x).rate).real.max() >= discount / 2:
            return np.inf  # and not what the linear system has for a solution
        return switching_cost(
            policy(x), hessian, hazard, metric, rate, gain, discount, prior_mean, start
        )

    def slope(x: Floats) -> Floats:
        """Exact, by complex steps."""
        return np.array([cost(x + 1e-30j * e).imag / 1e-30 for e in np.eye(len(x))])

    first = np.concatenate([np.eye(n).ravel(), np.eye(n).ravel() / 2, np.zeros(n)])
    near = optimize.minimize(cost, first, jac=slope, method="BFGS").x
    found: Any = optimize.root(slope, near, tol=1e-14)
    return policy(found.x)


def cheapest_velocity(
    v: float, theta: float, times: Floats, target: Floats, discount: float
) -> float:
    r"""The first velocity of the path that minimises the discretised, discounted objective.

    $\int e^{-\gamma t} [\dot\theta^2 / 2 + V (\theta - x_t)^2 / 2]$ for a target $x$ at
    even times; straight between points, read in the middle of intervals, end free.
    """
    h, n = times[1], len(times) - 1
    weight: Any = sparse.diags(h * np.exp(-discount * (times[:-1] + times[1:]) / 2))
    slope = (sparse.eye(n, n + 1, k=1) - sparse.eye(n, n + 1)) / h
    mean = (sparse.eye(n, n + 1, k=1) + sparse.eye(n, n + 1)) / 2
    quadratic = (slope.T @ weight @ slope + v * mean.T @ weight @ mean).tocsc()
    linear = v * mean.T @ (weight @ (mean @ target))
    # The first point is given.
    right = linear[1:] - quadratic[1:, 0].toarray()[:, 0] * theta
    path: Any = sparse_linalg.spsolve(quadratic[1:, 1:], right)
    return (4 * path[0] - path[1] - 3 * theta) / (2 * h)


def discounted_integral(times: Floats, path: Floats, matrix: Floats) -> Floats:
    r"""$D \int_0^\infty e^{-Ds} x_s ds$ of a path [time, n] that is straight between points."""
    total = linalg.expm(-matrix * times[-1]) @ path[-1]
    for start, end, x, y in zip(times[:-1], times[1:], path[:-1], path[1:], strict=True):

        def integrand(s: float, start: Any = start, end: Any = end, x: Any = x, y: Any = y) -> Any:
            here = x + (s - start) / (end - start) * (y - x)
            return matrix @ linalg.expm(-matrix * s) @ here

        if end > start:
            total = total + integrate.quad_vec(integrand, start, end, epsabs=1e-13)[0]
    return total
