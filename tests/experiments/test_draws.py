"""Draws against their controls: scores, numbers that are chosen, intervals, and the multiple."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import optimize, special
from sklearn import metrics

from experiments.certainty import classifiers, draws
from experiments.certainty.draws import ARMS, SCORES, Drawn
from experiments.certainty.results import difference, draws_against, of_draws
from experiments.tasks.catalogue import TASKS


def probabilities(seed: int = 0, examples: int = 50, classes: int = 4) -> Any:
    """Probabilities [example, class] and labels [example]."""
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(classes), examples), rng.integers(0, classes, examples)


# --- scores -------------------------------------------------------------------------------------


def test_scores_are_those_of_scikit_learn() -> None:
    given, labels = probabilities()
    nats, brier, error = draws.scored(given, labels)
    assert nats.shape == brier.shape == error.shape == labels.shape
    # Roundings of float32.
    assert float(nats.mean()) == pytest.approx(metrics.log_loss(labels, given), rel=1e-5)
    assert float(error.mean()) == pytest.approx(1 - np.mean(given.argmax(1) == labels))
    one_against_rest = [metrics.brier_score_loss(labels == k, given[:, k]) for k in range(4)]
    assert float(brier.mean()) == pytest.approx(sum(one_against_rest), rel=1e-5)


def test_scores_keep_the_axes_in_front_and_are_finite_where_a_probability_is_0() -> None:
    given, labels = probabilities()
    both = draws.scored(np.stack([given, given[::-1]]), labels)
    assert both.shape == (len(SCORES), 2, len(labels))
    np.testing.assert_allclose(both[:, 0], draws.scored(given, labels), rtol=1e-6)
    sure = draws.scored(np.eye(2), np.array([0, 1]))
    np.testing.assert_array_equal(sure, 0)
    assert np.isfinite(draws.scored(np.eye(2), np.array([1, 0]))).all()


# --- the number that is chosen ------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.4, 3.0, 10.0])
def test_the_temperature_is_where_the_slope_of_the_loss_is_0(confidence: float) -> None:
    """At the optimum the expected logit is the mean logit of the labels."""
    rng = np.random.default_rng(1)
    true = rng.normal(0, 1.5, (400, 5))
    labels = (true + rng.gumbel(size=true.shape)).argmax(1)
    logits = confidence * true

    def slope(inverse: float) -> float:
        expected = (special.softmax(inverse * logits, 1) * logits).sum(1)
        return float((expected - logits[np.arange(400), labels]).mean())

    inverse: Any = optimize.brentq(slope, 1e-3, 100)
    want = 1 / inverse

    def loss(temperature: float) -> float:
        found = special.softmax(logits / temperature, 1)
        return float(draws.scored(found, labels)[0].mean())

    found = draws.least(loss, list(draws.TEMPERATURES), 1.0)
    # The search ends within 0.05 of the logarithm.
    assert np.log(found) == pytest.approx(np.log(want), abs=0.05)


def test_the_neutral_number_is_chosen_where_no_other_is_better() -> None:
    assert draws.least(lambda x: x, [0.1, 1.0, 10.0], 0.0) == 0.0
    best = draws.least(lambda x: (np.log(x) - 5) ** 2 if x else 100, [0.1, 1.0, 10.0, 100.0], 0.0)
    assert np.log(best) == pytest.approx(np.log(100), abs=0.1)  # the end of what is tried


# --- intervals ----------------------------------------------------------------------------------


def test_the_interval_is_that_of_both_seeds_and_examples() -> None:
    """Variance components of a crossed table without interaction: seeds, examples."""
    rng = np.random.default_rng(2)
    of_seeds, of_examples = rng.normal(0, 1, 30), rng.normal(0, 2, 200)
    values = of_seeds[:, None] + of_examples
    mean, low, high = draws.bootstrap(values, draws=20_000)
    assert mean == pytest.approx(values.mean())
    error = np.sqrt(of_seeds.var() / 30 + of_examples.var() / 200)
    # Half a normal interval; 20,000 draws know a quantile to 2 %.
    np.testing.assert_allclose([mean - low, high - mean], 1.96 * error, rtol=0.04)


def test_a_difference_that_is_the_same_everywhere_has_no_width() -> None:
    mean, low, high = draws.bootstrap(np.full((5, 20), 0.3))
    np.testing.assert_allclose([mean, low, high], 0.3, rtol=1e-12)


# --- the multiple -------------------------------------------------------------------------------


@pytest.mark.parametrize("preconditioner", [1.0, 5.0])
def test_the_multiple_makes_the_spread_of_a_path_the_posterior_variance(
    preconditioner: float,
) -> None:
    """Linear regression on one input: the posterior is known, the path is walked."""
    rng = np.random.default_rng(3)
    examples, batch, rate, steps, paths = 500, 10, 0.05, 3000, 400
    x = rng.normal(0, 1.3, examples)
    y = 0.7 * x + rng.normal(0, 1, examples)  # of unit noise: the loss is in nats
    optimum = (x @ y) / (x @ x)
    position = np.full(paths, optimum)
    square = []
    for step in range(steps):
        drawn = rng.integers(0, examples, (paths, batch))
        gradient = ((position[:, None] * x[drawn] - y[drawn]) * x[drawn]).mean(1)
        position = position - rate * preconditioner * gradient
        if step > 500:
            square.append((position - optimum) ** 2)
    spread = np.mean(square)
    noise = np.var((optimum * x - y) * x) / batch
    curvature = np.mean(x**2)
    found = draws.multiple(rate, noise, examples, preconditioner, curvature) * spread
    want = 1 / (x @ x)
    # Gradients are noisier away from the optimum, by rate * Var(x^2) / (2 batch h): 1 and 6 %.
    assert found == pytest.approx(want, rel=0.1)
    assert abs(draws.multiple(rate, noise, examples) * spread / want - 1) > (
        0.3 if preconditioner > 1 else 0.0
    )


def test_one_multiple_does_only_where_noise_over_curvature_and_rate_times_curvature_agree() -> None:
    curvature = np.array([0.1, 1.0, 10.0])
    batch, examples, rate = 16, 1000, 0.01
    newton, descent = (
        draws.multiple(rate, curvature / batch, examples, d, curvature)
        for d in (1 / curvature, 1.0)
    )
    # A right model (C = h) and steps of the same share everywhere.
    np.testing.assert_allclose(newton, batch / examples * (2 - rate) / rate, rtol=1e-12)
    assert descent[0] / descent[2] > 50


# --- networks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits_mlp", "mnist1d_cnn"])
def test_a_classifier_is_the_task_of_the_bench(name: str) -> None:
    """The same start, the same batches, the same loss, and logits that give the same score."""
    ours, theirs = classifiers.load(name), TASKS[name]()
    assert (ours.task.steps, ours.task.batch) == (theirs.steps, theirs.batch)
    key_start, key_batch = jax.random.split(jax.random.key(4))
    params, same = ours.task.init(key_start), theirs.init(key_start)
    np.testing.assert_array_equal(ravel_pytree(params)[0], ravel_pytree(same)[0])
    assert float(ours.task.loss(params, key_batch)) == float(theirs.loss(same, key_batch))
    inputs, labels = ours.parts["test"]
    found = jax.nn.softmax(ours.logits(params, inputs))
    nats, _, error = draws.scored(found, labels).mean(1)
    want = theirs.score(same, "test")
    np.testing.assert_allclose([error, nats], want, rtol=1e-4)  # sums in another order


def test_shifted_inputs_are_noisier_and_moved() -> None:
    images = np.zeros((3, 9, 9), np.float32)
    images[:, 4, 1] = 1  # left of the middle
    found = classifiers.shifted(images)
    assert list(found) == list(classifiers.INPUTS)
    np.testing.assert_array_equal(found["clean"], images)
    down, right = np.unravel_index(found["moved"][0].argmax(), (9, 9))
    angle = np.degrees(np.arctan2(abs(down - 4), 4 - right))
    assert angle == pytest.approx(classifiers.ANGLE, abs=15)  # pixels are coarse
    noise = classifiers.shifted(np.zeros((100, 40)))["noisy"]
    assert noise.std() == pytest.approx(classifiers.NOISE, rel=0.05)
    signal = np.arange(40.0)[None]
    np.testing.assert_array_equal(
        classifiers.shifted(signal)["moved"][0], np.roll(signal[0], classifiers.DISPLACEMENT)
    )


def test_controls_have_the_total_variance_of_the_spread() -> None:
    variance = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.array([[1.0], [9.0]])}  # [seed, ...]
    multiples = jax.tree.map(lambda x: 2 + 0 * x, variance)
    found = draws._spreads(variance, multiples, jax.random.key(0))
    flat = {arm: jax.vmap(lambda t: ravel_pytree(t)[0])(tree) for arm, tree in found.items()}
    for arm in ("isotropic", "permuted"):
        np.testing.assert_allclose(flat[arm].sum(1), flat["draws"].sum(1), rtol=1e-6)
    assert np.ptp(flat["isotropic"], axis=1).max() == 0
    np.testing.assert_array_equal(np.sort(flat["permuted"], 1), np.sort(flat["draws"], 1))
    assert (flat["permuted"] != flat["draws"]).any()
    np.testing.assert_allclose(flat["derived"], 2 * flat["draws"])


def test_an_arm_is_held_against_the_tempered_mean_on_the_same_seeds_and_examples() -> None:
    rng = np.random.default_rng(5)
    scores = rng.uniform(size=(len(SCORES), 1, 3, 4, 60)) * np.ones((1, len(ARMS), 1, 1, 1))
    scores[:, ARMS.index("draws")] -= 0.25
    drawn = Drawn(0.1, 2.0, dict.fromkeys(ARMS, 1.0), np.ones((4, 3)), scores)
    np.testing.assert_allclose(difference(drawn, "nats", "noisy", "draws", "temperature"), -0.25)
    found = draws_against({"one": drawn, "two": drawn}, "draws", "temperature")
    assert found == {"better": 2 * 2 * 3, "worse": 0, "neither": 0}
    said = of_draws(drawn)["arms"]
    assert set(said) == set(ARMS)
    np.testing.assert_allclose(said["mean"]["minus_temperature"]["moved"]["brier"], 0, atol=1e-12)
