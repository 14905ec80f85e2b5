"""Linear-Gaussian models of several variables, conditioned as one Gaussian."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from tests.oracles.gradient import _log_density, local_level_covariance
from tests.oracles.streams import Floats


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
