r"""Small Gaussians as structures of arrays: the algebra of linear-Gaussian state-space models.

A Gaussian over $d$ variables per parameter is held as tuples of arrays, one entry of the mean or of
the factored covariance each, and the algebra is unrolled over $d$ while it is traced: no matrix is
ever built, so that XLA fuses a filter over millions of parameters into elementwise passes. All
arrays of one Gaussian broadcast against each other; numbers that are known to be 0 or 1 cost
nothing.

The covariance is held as $P = L D L^\top$, $L$ unit lower triangular and $D \ge 0$ diagonal. $D$ is
only ever a sum of non-negative terms (`predict`) or such a one times a ratio of two of them
(`condition`): it stays positive in any precision, for any number of steps. That is needed: with
the covariance itself as the state, in float32, a few readings that are much sharper than the prior
leave a negative variance of what was not read, by $P_{hh} - P_{gh}^2/S$, and Joseph's form cancels
in the same way. Observing the first variable touches one number, $D_0$.

Example:
    A position and a velocity, of which the position is read:

    >>> from beliefnav.beliefs import gaussian
    >>> belief = gaussian.independent((0.0, 1.0), (1.0, 1.0))
    >>> step = gaussian.Conditional(((1, 1), (0, 1)), gaussian.independent((0, 0), (0.0, 0.1)))
    >>> belief, reading = gaussian.condition(gaussian.predict(belief, step), (1, 0), 3.0, 0.5)
    >>> [round(float(m), 4) for m in belief.mean]
    [2.6, 1.8]

References:
    Bierman, "Factorization Methods for Discrete Sequential Estimation", 1977, chapters V (rank-one
    update) and VI (weighted Gram-Schmidt, after Thornton).
    Särkkä and García-Fernández, "Temporal parallelization of Bayesian smoothers", IEEE Transactions
    on Automatic Control 66 (2021), arXiv:1905.13002 (`chain`, there with covariances).
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from beliefnav._checks import is_number
from beliefnav._trees import select

__all__ = [
    "Conditional",
    "Gaussian",
    "Link",
    "Row",
    "affine",
    "chain",
    "compose",
    "condition",
    "dot",
    "draw",
    "independent",
    "link",
    "predict",
    "reverse",
]

Row = tuple[Any, ...]  # arrays, or numbers that are known while tracing


class Gaussian(NamedTuple):
    r"""$N(m, L D L^\top)$ over $d$ variables; every entry is an array [...].

    Attributes:
        mean: $m$, $d$ entries.
        factor: $L$ below its diagonal, row by row: $L_{10}, L_{20}, L_{21}, \ldots$; $d(d-1)/2$
            entries. $L_{ij}$ is the regression of variable $i$ on what is new in variable $j$.
        variances: the diagonal of $D$, $d$ entries: what is new in each variable.
    """

    mean: Row
    factor: Row
    variances: Row

    def loading(self, i: int, j: int) -> ArrayLike:
        """The entry $L_{ij}$."""
        if i == j:
            return 1
        return self.factor[i * (i - 1) // 2 + j] if i > j else 0

    def covariance(self, i: int, j: int) -> Array:
        """The entry $P_{ij}$ of the covariance."""
        pairs = ((self.loading(i, k), self.loading(j, k), d) for k, d in enumerate(self.variances))
        return jnp.asarray(_sum(_product(*terms) for terms in pairs))


class Conditional(NamedTuple):
    r"""$x' \mid x \sim N(A x + b, Q)$.

    Attributes:
        matrix: $A$, a tuple of rows.
        noise: the Gaussian $N(b, Q)$.
    """

    matrix: tuple[Row, ...]
    noise: Gaussian


class Reading(NamedTuple):
    r"""What a scalar observation $y = h^\top x + N(0, R)$ met.

    Attributes:
        innovation: $e = y - h^\top m$, 0 where there is no reading.
        variance: $S = h^\top P h + R$, its predictive variance; $R$ where there is no reading.
        gain: $P h / S$, $d$ entries.
        weight: 1 where there is a reading, 0 where there is none.
    """

    innovation: Array
    variance: Array
    gain: Row
    weight: ArrayLike = 1

    def log_density(self) -> Array:
        r"""$\log N(e; 0, S)$."""
        return -(self.innovation**2 / self.variance + jnp.log(2 * math.pi * self.variance)) / 2


def independent(mean: Row, variances: Row) -> Gaussian:
    """A Gaussian of independent variables.

    Args:
        mean: $d$ entries.
        variances: $d$ non-negative entries.

    Returns:
        The Gaussian.

    Raises:
        ValueError: there are not as many variances as means.
    """
    if len(mean) != len(variances):
        raise ValueError(f"independent: {len(mean)} means, but {len(variances)} variances.")
    return Gaussian(tuple(mean), (0,) * (len(mean) * (len(mean) - 1) // 2), tuple(variances))


def dot(a: Iterable[ArrayLike], b: Iterable[ArrayLike]) -> Any:
    """The scalar product of two rows; the number 0 if all its terms are known to be 0."""
    return _sum(_product(x, y) for x, y in zip(a, b, strict=True))


def predict(belief: Gaussian, step: Conditional) -> Gaussian:
    r"""The distribution of $x' = A x + N(b, Q)$: mean $A m + b$, covariance $A P A^\top + Q$.

    Args:
        belief: the distribution of $x$, $d$ variables.
        step: how $x'$ follows from $x$.

    Returns:
        The distribution of $x'$.
    """
    factor, variances = _orthogonalise(_rows(belief, step), _weights(belief, step))
    return Gaussian(_mean(belief, step), factor, variances)


def reverse(belief: Gaussian, step: Conditional) -> tuple[Gaussian, Conditional]:
    r"""Bayes' rule for a step: $p(x) \, p(x' \mid x) = p(x') \, p(x \mid x')$.

    The backward conditional is what Rauch-Tung-Striebel smoothing and backward sampling are made
    of: with $G = P A^\top (A P A^\top + Q)^{-1}$ it is $N(m + G (x' - m'), P - G A P)$.

    Args:
        belief: $p(x)$.
        step: $p(x' \mid x)$.

    Returns:
        $p(x')$, as `predict` gives it, and $p(x \mid x')$.
    """
    d = len(belief.mean)
    own = [[belief.loading(i, j) for j in range(d)] + [0] * d for i in range(d)]
    factor, variances = _orthogonalise(_rows(belief, step) + own, _weights(belief, step))
    # Variables 0..d-1 are x', d..2d-1 are x: x = X e' + L e with x' = L' e', so G = X L'^{-1}.
    joint = Gaussian((0,) * (2 * d), factor, variances)
    gain: list[list[ArrayLike]] = []
    for i in range(d):
        row: list[ArrayLike] = [joint.loading(d + i, j) for j in range(d)]
        for j in reversed(range(d)):
            for k in range(j):
                row[k] = row[k] - _product(row[j], joint.loading(j, k))
        gain.append(row)
    mean = _mean(belief, step)
    offset = tuple(belief.mean[i] - dot(gain[i], mean) for i in range(d))
    below = tuple(joint.loading(d + i, d + j) for i in range(d) for j in range(i))
    predicted = Gaussian(
        mean, tuple(joint.loading(i, j) for i in range(d) for j in range(i)), variances[:d]
    )
    backward = Conditional(tuple(map(tuple, gain)), Gaussian(offset, below, variances[d:]))
    return predicted, backward


def compose(first: Conditional, second: Conditional) -> Conditional:
    r"""$p(x'' \mid x) = \int p(x'' \mid x') \, p(x' \mid x) \, dx'$. Associative.

    Args:
        first: $p(x' \mid x)$.
        second: $p(x'' \mid x')$.

    Returns:
        $p(x'' \mid x)$.
    """
    return Conditional(_matmul(second.matrix, first.matrix), predict(first.noise, second))


def condition(
    belief: Gaussian,
    row: Row,
    value: ArrayLike,
    noise_variance: ArrayLike,
    seen: Array | None = None,
) -> tuple[Gaussian, Reading]:
    r"""The posterior after reading $y = h^\top x + N(0, R)$.

    With $f = L^\top h$ and the partial sums $\alpha_j = R + \sum_{k \ge j} D_k f_k^2$, so that
    $\alpha_0 = S$ and $\alpha_d = R$,

    $$ D_j \leftarrow D_j \frac{\alpha_{j+1}}{\alpha_j}, \qquad
       L_{ij} \leftarrow L_{ij} - \frac{f_j}{\alpha_{j+1}} \sum_{k = j+1}^{i} L_{ik} D_k f_k. $$

    Args:
        belief: the prior.
        row: $h$, $d$ entries.
        value: $y$, finite where ``seen``.
        noise_variance: $R > 0$.
        seen: where there is a reading; ``None``: everywhere. Elsewhere the belief stays.

    Returns:
        The posterior, and what the reading met.
    """
    weight = 1 if seen is None else seen.astype(jnp.result_type(value))
    factor, variances, direction, total = _update(belief, row, noise_variance, weight)
    expected = dot(row, belief.mean)
    value = value if seen is None else select(seen, value, expected)
    innovation = jnp.asarray(value - expected)
    mean = tuple(m + _product(k, innovation) for m, k in zip(belief.mean, direction, strict=True))
    reading = Reading(innovation, jnp.asarray(total), direction, weight)
    return Gaussian(mean, factor, variances), reading


class Potential(NamedTuple):
    r"""A likelihood in information form, $\prod_k \exp(\zeta_k h_k^\top x - w_k (h_k^\top x)^2/2)$.

    Attributes:
        rows: $h_k$, $d$ rows.
        weights: $w_k \ge 0$, the precision of each.
        values: $\zeta_k$, the value seen times its precision.
    """

    rows: tuple[Row, ...]
    weights: Row
    values: Row


class Link(NamedTuple):
    r"""Readings between two times, $p(x', y \mid x) \propto p(x' \mid x, y) \, p(y \mid x)$.

    Attributes:
        step: $p(x' \mid x, y)$.
        potential: $p(y \mid x)$, up to a constant.
    """

    step: Conditional
    potential: Potential


def link(step: Conditional, readings: Iterable[tuple[Row, ArrayLike, ArrayLike]]) -> Link:
    r"""One step and the readings after it.

    Args:
        step: $p(x' \mid x)$.
        readings: rows $h$, values and noise variances of readings of $x'$.

    Returns:
        The link, to be joined to others with `chain`.
    """
    seen = [(row, 1 / jnp.asarray(noise), value / noise) for row, value, noise in readings]
    rows, weights, values = zip(*seen, strict=True)
    return _absorb(step, Potential(rows, weights, values), None)


def chain(first: Link, second: Link) -> Link:
    """The link from the start of one to the end of the next. Associative.

    Every prefix of a chain that starts at a prior is a filtered belief: its ``step.noise``, if the
    matrix of its first step is 0.
    """
    middle = _absorb(first.step, second.potential, first.potential)
    return Link(compose(middle.step, second.step), middle.potential)


def _absorb(step: Conditional, seen: Potential, earlier: Potential | None) -> Link:
    """``step`` given what was ``seen`` of its end; what that and ``earlier`` say of its start."""
    rows: list[Row] = [] if earlier is None else list(earlier.rows)
    weights: list[Any] = [] if earlier is None else list(earlier.weights)
    values: list[Any] = [] if earlier is None else list(earlier.values)
    for row, weight, value in zip(*seen, strict=True):
        matrix, noise = step
        slope = tuple(dot(row, column) for column in zip(*matrix, strict=True))
        surprise = value - weight * dot(row, noise.mean)
        factor, variances, direction, total = _update(noise, row, 1, weight)
        mean = tuple(m + k * surprise for m, k in zip(noise.mean, direction, strict=True))
        step = Conditional(
            tuple(
                tuple(a - k * weight * s for a, s in zip(row_, slope, strict=True))
                for row_, k in zip(matrix, direction, strict=True)
            ),
            Gaussian(mean, factor, variances),
        )
        rows.append(slope)
        weights.append(weight / total)
        values.append(surprise / total)
    # As many potentials as variables say the same: J = L W L', and L (values) = information.
    columns = list(map(list, zip(*rows, strict=True)))
    information = [dot(values, column) for column in columns]
    factor, variances = _orthogonalise(columns, tuple(weights))
    d = len(columns)
    lower = Gaussian((0,) * d, factor, variances)
    solved: list[ArrayLike] = []
    for i in range(d):
        known = dot([lower.loading(i, j) for j in range(i)], solved)
        solved.append(information[i] - known)
    directions = tuple(tuple(lower.loading(i, j) for i in range(d)) for j in range(d))
    return Link(step, Potential(directions, variances, tuple(solved)))


def draw(noise: Row, belief: Gaussian) -> tuple[Array, ...]:
    r"""$m + L \sqrt D \, \varepsilon$.

    Args:
        noise: $\varepsilon$, $d$ standard normal arrays.
        belief: the distribution to draw from.

    Returns:
        One draw, $d$ arrays.
    """
    new = [jnp.sqrt(v) * e for v, e in zip(belief.variances, noise, strict=True)]
    d = len(new)
    return tuple(
        jnp.asarray(
            belief.mean[i] + dot([belief.loading(i, j) for j in range(i + 1)], new[: i + 1])
        )
        for i in range(d)
    )


def affine(step: Conditional, x: Row) -> Gaussian:
    r"""$p(x' \mid x)$ at a given $x$."""
    mean = tuple(b + dot(row, x) for row, b in zip(step.matrix, step.noise.mean, strict=True))
    return step.noise._replace(mean=mean)


def _update(
    belief: Gaussian, row: Row, base: ArrayLike, weight: ArrayLike
) -> tuple[Row, Row, Row, ArrayLike]:
    r"""Factor, variances, $P h / S$ and $S$ = ``base`` + ``weight`` $h^\top P h$ after a reading.

    The covariance becomes $P - P h h^\top P \cdot$ ``weight`` $/ S$. Base and weight may be $R$ and
    1, or 1 and $1/R$.
    """
    d = len(belief.mean)
    f = [_sum(_product(belief.loading(k, j), row[k]) for k in range(j, d)) for j in range(d)]
    spread = [_product(v, f_j) for v, f_j in zip(belief.variances, f, strict=True)]
    partial: list[ArrayLike] = [base]
    for s, f_j in reversed(list(zip(spread, f, strict=True))):
        partial.insert(0, _sum([partial[0], _product(weight, s, f_j)]))

    variances, scaled = [], []
    for j in range(d):
        if is_number(f[j], 0):
            variances.append(belief.variances[j])
            scaled.append(0)
        else:
            # The ratio first: a product of two variances may under- or overflow.
            variances.append(belief.variances[j] * (partial[j + 1] / partial[j]))
            # D_0 / S is D_0' / alpha_1: an array less to divide.
            first = j == 0
            scaled.append(
                _ratio(_product(f[0], variances[0]), partial[1])
                if first
                else spread[j] / partial[0]
            )
    factor = []
    for i in range(d):
        for j in range(i):
            moved = dot([belief.loading(i, k) for k in range(j + 1, i + 1)], spread[j + 1 : i + 1])
            change = _product(weight, f[j], moved)
            loading = belief.loading(i, j)
            factor.append(loading if is_number(change, 0) else loading - change / partial[j + 1])
    direction = tuple(
        dot([belief.loading(i, j) for j in range(i + 1)], scaled[: i + 1]) for i in range(d)
    )
    return tuple(factor), tuple(variances), direction, partial[0]


def _orthogonalise(rows: Sequence[Sequence[Any]], weights: Row) -> tuple[Row, Row]:
    r"""$L$ and $D$ of $A W A^\top = L D L^\top$, by modified weighted Gram-Schmidt on the rows."""
    if len(rows) == 2:
        return _orthogonalise_two(rows[0], rows[1], weights)
    remaining = [list(row) for row in rows]
    d = len(remaining)
    loadings: dict[tuple[int, int], Any] = {}
    variances = []
    for j, pivot in enumerate(remaining):
        weighted = [_product(w, a) for w, a in zip(weights, pivot, strict=True)]
        variances.append(dot(weighted, pivot))
        for i in range(j + 1, d):
            loadings[i, j] = _over(dot(weighted, remaining[i]), variances[j])
            remaining[i] = [
                _sum([a, _product(-1, loadings[i, j], p)])
                for a, p in zip(remaining[i], pivot, strict=True)
            ]
    return tuple(loadings[i, j] for i in range(d) for j in range(i)), tuple(variances)


def _orthogonalise_two(one: Sequence[Any], other: Sequence[Any], weights: Row) -> tuple[Row, Row]:
    """The same for two rows, where nothing need cancel and no result waits for another.

    The second variance is the determinant over the first, and the determinant the weighted sum of
    all squared minors (Cauchy-Binet).
    """
    columns = list(zip(one, other, weights, strict=True))
    weighted = [_product(w, a) for a, _, w in columns]
    first = dot(weighted, one)
    shared = dot(weighted, other)
    own = _sum(_product(w, b, b) for _, b, w in columns)
    # What only the second has is all its own.
    rest = _sum(_product(w, b, b) for a, b, w in columns if is_number(a, 0))
    both = [column for column in columns if not is_number(column[0], 0)]
    has, safe = _divisor(first)
    for k, (a, b, w) in enumerate(both):
        against = _sum(
            _product(w_, minor, minor)
            for a_, b_, w_ in both[k + 1 :]
            for minor in [_difference(_product(a, b_), _product(a_, b))]
        )
        if not is_number(against, 0):
            # The ratio first: a product of two variances may under- or overflow.
            rest = _sum([rest, _product(w / safe, against)])
    # Where the first variable is certain, the second has nothing to share.
    rest = select(has, rest, own)
    return (0 if is_number(shared, 0) else shared / safe,), (first, rest)


def _divisor(variance: Any) -> tuple[Any, Any]:
    """Where there is a variance, and what to divide by: nothing stands above one that is 0."""
    has = jnp.asarray(variance) > 0
    return has, select(has, variance, 1)


def _over(numerator: Any, variance: Any) -> Any:
    """The quotient; 0 where there is no variance, and so nothing above it either."""
    return 0 if is_number(numerator, 0) else numerator / _divisor(variance)[1]


def _ratio(numerator: Any, denominator: Any) -> Any:
    return numerator if is_number(denominator, 1) else numerator / denominator


def _rows(belief: Gaussian, step: Conditional) -> list[list[ArrayLike]]:
    """$[A L, L_Q]$: $A x$ and the noise in terms of what is new in each."""
    d, n = len(belief.mean), len(step.matrix)
    return [
        [dot(step.matrix[i], [belief.loading(k, j) for k in range(d)]) for j in range(d)]
        + [step.noise.loading(i, j) for j in range(n)]
        for i in range(n)
    ]


def _weights(belief: Gaussian, step: Conditional) -> Row:
    return (*belief.variances, *step.noise.variances)


def _mean(belief: Gaussian, step: Conditional) -> Row:
    return tuple(
        _sum([dot(row, belief.mean), b])
        for row, b in zip(step.matrix, step.noise.mean, strict=True)
    )


def _matmul(a: tuple[Row, ...], b: tuple[Row, ...]) -> tuple[Row, ...]:
    return tuple(tuple(dot(row, column) for column in zip(*b, strict=True)) for row in a)


def _sum(terms: Iterable[ArrayLike]) -> Any:
    """The sum of the terms that are not known to be 0."""
    total: Any = 0
    for term in terms:
        if not is_number(term, 0):
            total = term if is_number(total, 0) else total + term
    return total


def _difference(one: Any, other: Any) -> Any:
    """One less the other, up to its sign: what is squared."""
    return other if is_number(one, 0) else one if is_number(other, 0) else one - other


def _product(*factors: ArrayLike) -> Any:
    """The product, 0 if a factor is known to be, without the factors that are known to be 1."""
    product: Any = 1
    for factor in factors:
        if is_number(factor, 0):
            return 0
        if not is_number(factor, 1):
            product = factor if is_number(product, 1) else product * factor
    return product
