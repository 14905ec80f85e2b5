r"""Draws of parameters against their controls: does the spread of a path say what is not known?

`beliefnav.sample_params` draws from $N(\bar\theta, c s^2)$, the average of a path and its spread.
The mean of the probabilities of such draws is compared with controls, each with one number that is
chosen by the nats of the validation split:

| arm | its number |
|---|---|
| mean | none: the probabilities at the average |
| temperature | of the logits at the average (Guo et al. 2017) |
| draws | c |
| derived | none: draws whose variance is the posterior's of each coordinate, as derived below |
| derived, scaled | c, of the same draws |
| isotropic | c, of draws with the mean variance of all coordinates for each of them |
| permuted | c, of draws whose variances are permuted over all coordinates |
| ensemble | k, of k networks trained for 1/k of the steps each |

**Which multiple.** Descent $\theta_{t+1} = \theta_t - a d y_t$ with rate a and preconditioner d
sees gradients $y_t = h (\theta_t - \theta^*) + N(0, R)$ of batches of B examples, $R = C/B$. A step
multiplies the distance to the optimum by $f = 1 - a d h$ and adds $a^2 d^2 R$ to its variance, so
that the variance of a stationary path is $a^2 d^2 R / (1 - f^2)$. The posterior of N examples under
a flat prior, for a loss that is the mean negative log likelihood in nats, has the variance
$1/(N h)$:

$$ s^2 = \frac{a d R}{h (2 - a d h)} , \qquad v = \frac1{N h} , \qquad
   \frac{v}{s^2} = \frac{2 - a d h}{a d N R}
   = \frac BN \cdot \frac{2 - x}{x \kappa} , \quad x = a d h , \quad \kappa = \frac Ch . $$

The two numbers that decide are the curvature times the rate, x, and the noise over the curvature,
$\kappa$; one multiple does for all coordinates only if $(2 - x)/(x \kappa)$ is the same for all. A
model that is right has $\kappa = 1$ at its optimum (the variance of the gradient is the Fisher
information, which is the curvature), so that for gradient descent x, and so the curvature, would
have to be one number. Adam near an optimum divides by the root of the mean square of the gradient,
$d = R^{-1/2}$, and where x is small

$$ \frac{v}{s^2} \approx \frac{2}{a N \sqrt R} $$

needs the rate, the number of examples, and the mean square of a batch's gradient, which holds the
size of the batch. It differs between coordinates as $R^{-1/2}$ does. The derivation asks that the
path is stationary, the memory long beside 1/x steps, the loss quadratic, and the coordinates
eigendirections; networks keep to none of these exactly.

**Equal cost** of an ensemble is the number of gradients: k networks of T/k steps take as many
gradients as one of T. To predict, the mean takes one pass through a network, the ensemble k, and
draws as many as there are draws.

Reference:
    Guo et al., "On calibration of modern neural networks", ICML 2017. Mandt, Hoffman and Blei,
    "Stochastic gradient descent as approximate Bayesian inference", JMLR 18, 2017. Maddox et al.,
    "A simple baseline for Bayesian uncertainty in deep learning", NeurIPS 2019. Lakshminarayanan,
    Pritzel and Blundell, "Simple and scalable predictive uncertainty estimation using deep
    ensembles", NeurIPS 2017.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.flatten_util import ravel_pytree
from scipy import optimize
from tqdm import tqdm

from beliefnav import beliefs, rules, sample_params, wrappers
from experiments import training
from experiments.certainty import classifiers
from experiments.certainty.bench import Benched
from experiments.certainty.classifiers import INPUTS, Classifier
from experiments.certainty.config import Config
from experiments.kept import Kept

DRAWN = ("draws", "derived", "derived, scaled", "isotropic", "permuted")
ARMS = ("mean", "temperature", *DRAWN, "ensemble")
FIXED = {"mean": 0.0, "derived": 1.0}
"""Arms without a number to choose, and the multiple of the variance that they stand for."""
SCORES = ("nats", "brier", "error")
MULTIPLES = 16.0 ** np.arange(-4, 3)
"""Multiples of a variance that are tried; the best is then searched for between its neighbours."""
TEMPERATURES = 2.0 ** np.arange(-2, 5)
MEMBERS = (2, 5)
"""Sizes of the ensembles that are tried."""
GRADIENTS = 100
"""Batches whose gradients give the noise at the average."""
SETTINGS = 2.7e-3, 2.0
"""Rate and power of the average for a network that was not on the bench."""


class Drawn(NamedTuple):
    """What the arms came to on one network.

    Attributes:
        rate: of Adam.
        power: of the average.
        numbers: arm -> the number that was chosen, or that of `FIXED`.
        multiples: the derived multiple, 5 %, 50 % and 95 % of it over coordinates [seed, 3].
        scores: of `SCORES`, on test [score, arm, inputs, seed, example].
    """

    rate: float
    power: float
    numbers: dict[str, float]
    multiples: np.ndarray
    scores: np.ndarray

    def of(self, score: str, arm: str, inputs: str) -> np.ndarray:
        """One score of one arm [seed, example]."""
        return self.scores[SCORES.index(score), ARMS.index(arm), INPUTS.index(inputs)]


def measure(config: Config, benched: Benched) -> dict[str, Drawn]:
    """Train, choose and score on every network; one whose data are missing is left out."""
    kept, found, stages = Kept(config.folder / "kept"), {}, 1 + len(ARMS)
    with tqdm(total=len(config.networks) * stages, desc="draws", unit="arm") as bar:
        for k, name in enumerate(config.networks):
            bar.set_description(f"draws, {name}")
            rate, power = _settings(benched, name)
            options = {"network": name, "rate": rate, "power": power, "seed": config.seed}
            options |= {"seeds": config.seeds, "draws": config.draws}
            compute = functools.partial(_computed, name, rate, power, config, bar)
            try:
                found[name] = Drawn(**kept.measure(f"{name}/draws", options, compute))
            except FileNotFoundError as error:
                print(f"Left out: draws on {name}. {error}")
            bar.update((k + 1) * stages - bar.n)
    return found


def _computed(*given: Any) -> dict[str, Any]:
    name, *rest = given
    return compare(classifiers.load(name), *rest)._asdict()


def _settings(benched: Benched, name: str) -> tuple[float, float]:
    """Rate and power that the bench chose for the average of Adam."""
    chosen = benched.arms.get(name, {}).get("adam, average")
    return SETTINGS if chosen is None else (chosen.rate, float(chosen.power or 0))


# --- the multiple -------------------------------------------------------------------------------


def multiple(
    rate: Any, noise: Any, examples: Any, preconditioner: Any = 1.0, curvature: Any = 0.0
) -> Any:
    r"""The posterior variance over the stationary variance of the path, $(2 - a d h)/(a d N R)$.

    Args:
        rate: a.
        noise: R, variance of the gradient of a batch.
        examples: N.
        preconditioner: d, by which the gradient is multiplied.
        curvature: h; 0 leaves the term of second order in the rate out.
    """
    step = rate * preconditioner
    return (2 - step * curvature) / (step * examples * noise)


# --- scores -------------------------------------------------------------------------------------


def scored(probabilities: Any, labels: Any) -> Array:
    r"""Nats $-\log p_y$, Brier score $\sum_k (p_k - [k = y])^2$, error: [score, ..., example]."""
    probabilities = jnp.asarray(probabilities)
    labels = jnp.broadcast_to(labels, probabilities.shape[:-1])
    hot = jax.nn.one_hot(labels, probabilities.shape[-1])
    nats = -jnp.log(jnp.maximum(jnp.sum(hot * probabilities, -1), jnp.finfo(jnp.float32).tiny))
    brier = jnp.sum((probabilities - hot) ** 2, -1)
    return jnp.stack([nats, brier, 1.0 * (probabilities.argmax(-1) != labels)])


def least(loss: Callable[[float], float], tried: Any, neutral: float) -> float:
    """The number of the lowest loss: of those tried, and then between neighbours of the best.

    Args:
        loss: ``number -> loss``.
        tried: positive numbers, rising.
        neutral: the number that leaves all as it is, which is tried too.
    """
    losses = [loss(number) for number in tried]
    best = int(np.argmin(losses))
    ends = tried[max(best - 1, 0)], tried[min(best + 1, len(tried) - 1)]
    search: Any = optimize.minimize_scalar(
        lambda logarithm: loss(float(np.exp(logarithm))),
        bounds=np.log(ends),
        method="bounded",
        options={"xatol": 0.05, "maxiter": 12},
    )
    found = {neutral: loss(neutral), tried[best]: losses[best], float(np.exp(search.x)): search.fun}
    return float(min(found, key=lambda number: found[number]))


def bootstrap(
    values: np.ndarray, draws: int = 2000, seed: int = 0, share: float = 0.95
) -> list[float]:
    """Mean with its percentile interval, over seeds and examples that are both drawn again.

    Args:
        values: [seed, example]; differences, for a paired interval.
        draws: how often.
        seed: of the draws.
        share: of the draws that lie inside.
    """
    rng = np.random.default_rng(seed)
    seeds, examples = values.shape
    of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), draws) / seeds
    of_examples = rng.multinomial(examples, np.full(examples, 1 / examples), draws) / examples
    means = np.einsum("ds,ds->d", of_seeds, of_examples @ values.T)
    low, high = np.quantile(means, [(1 - share) / 2, (1 + share) / 2])
    return [float(values.mean()), float(low), float(high)]


# --- one network --------------------------------------------------------------------------------


def compare(classifier: Classifier, rate: float, power: float, config: Config, bar: Any) -> Drawn:
    """Train on all seeds, choose every number on validation, and score on test."""
    predict, multiples = predictors(classifier, rate, power, config)
    bar.update()
    test, validation = (classifier.parts[split] for split in ("test", "validation"))
    asked = classifiers.shifted(test.inputs, config.seed)
    numbers, scores = {}, []
    for arm in ARMS:

        def loss(number: float, arm: str = arm) -> float:
            found = predict[arm](number, validation.inputs)
            return float(scored(found, validation.labels)[0].mean())

        numbers[arm] = _choose(arm, loss)
        of_arm = [scored(predict[arm](numbers[arm], x), test.labels) for x in asked.values()]
        scores.append(np.stack(of_arm, 1))
        bar.update()
    return Drawn(rate, power, numbers, multiples, np.stack(scores, 1))


def _choose(arm: str, loss: Callable[[float], float]) -> float:
    """The number of an arm with the lowest loss."""
    if arm in FIXED:
        return FIXED[arm]
    if arm == "ensemble":
        return min(MEMBERS, key=loss)
    return least(loss, *((TEMPERATURES, 1.0) if arm == "temperature" else (MULTIPLES, 0.0)))


Predict = Callable[[float, Any], Array]
"""``(number, inputs) -> probabilities`` [seed, example, class]."""


def predictors(
    classifier: Classifier, rate: float, power: float, config: Config
) -> tuple[dict[str, Predict], np.ndarray]:
    """Train, and say how each arm predicts; with them the derived multiples of `Drawn`."""
    keys = jax.random.split(jax.random.key(config.seed), 5)
    key_train, key_noise, key_draws, key_permuted, key_members = keys
    steps, seeds = classifier.task.steps, config.seeds
    train = trainer(classifier, rate, power)
    state = train(steps, jax.random.split(key_train, seeds))
    multiples = _multiples(classifier, rate, state.average.mean, key_noise)
    spreads = _spreads(state.path_variance, multiples, key_permuted)
    keys = jax.vmap(lambda key: jax.random.split(key, config.draws))(
        jax.random.split(key_draws, seeds)
    )

    @jax.jit
    def logits(means: Any, inputs: Any) -> Array:
        return lax.map(lambda params: classifier.logits(params, inputs), means)

    @jax.jit
    def drawn(state: Any, number: Any, inputs: Any) -> Array:
        def of_seed(given: Any) -> Array:
            state, keys = given

            def of_draw(key: Array) -> Array:
                return jax.nn.softmax(classifier.logits(sample_params(state, key, number), inputs))

            return lax.map(of_draw, keys).mean(0)

        return lax.map(of_seed, (state, keys))

    def cooled(number: float, inputs: Any) -> Array:
        return jax.nn.softmax(logits(state.average.mean, inputs) / number)

    def together(number: float, inputs: Any) -> Array:
        found = jax.nn.softmax(logits(members[int(number)], inputs))  # [seed and member, ...]
        return found.reshape(seeds, int(number), *found.shape[1:]).mean(1)

    members = {}
    for count in MEMBERS:
        keys_of_members = jax.random.split(jax.random.fold_in(key_members, count), seeds * count)
        members[count] = train(steps // count, keys_of_members).average.mean
    predict: dict[str, Predict] = {
        "mean": lambda number, inputs: cooled(1.0, inputs),
        "temperature": cooled,
        "ensemble": together,
    }
    for arm, spread in spreads.items():
        predict[arm] = functools.partial(drawn, state._replace(path_variance=spread))
    flat = jax.vmap(lambda tree: ravel_pytree(tree)[0])(multiples)
    return predict, np.quantile(flat, [0.05, 0.5, 0.95], axis=1).T


def trainer(classifier: Classifier, rate: float, power: float) -> Callable[[int, Array], Any]:
    """How Adam is trained inside an average that holds the spread of its path.

    All numbers of steps go through one program, a part of the steps at a time. On a processor seeds
    side by side are no faster.

    Returns:
        ``(steps, keys) -> states`` of `beliefnav.wrappers.iterate_averaging` [key].
    """
    memory = beliefs.PolynomialLevel(power)
    optimizer = wrappers.iterate_averaging(rules.adam(rate), memory, variance=True)
    part = math.gcd(*(classifier.task.steps // count for count in (1, *MEMBERS)))

    @jax.jit
    def start(key: Array) -> Any:
        params = classifier.task.init(key)
        return params, optimizer.init(params)

    @jax.jit
    def advance(carry: Any, keys: Array) -> Any:
        return training.train(classifier.task.loss, optimizer, carry, keys)[0]

    def path(steps: int, key: Array) -> Any:
        key_start, key_batches = jax.random.split(key)
        carry = start(key_start)
        for keys in jax.random.split(key_batches, (steps // part, part)):
            carry = advance(carry, keys)
        return carry[1]._replace(inner_state=None)

    def trained(steps: int, keys: Array) -> Any:
        return jax.tree.map(lambda *x: jnp.stack(x), *(path(steps, key) for key in keys))

    return trained


def _multiples(classifier: Classifier, rate: float, means: Any, key: Array) -> Any:
    """The derived multiple of every coordinate, a tree like the parameters [seed, ...].

    A coordinate whose gradients are all 0 has no spread either, and a large multiple of nothing.
    """
    keys = jax.random.split(key, GRADIENTS)

    def of_seed(params: Any) -> Any:
        def square(key: Array) -> Any:
            return jax.tree.map(jnp.square, jax.grad(classifier.task.loss)(params, key))

        noise = jax.tree.map(lambda x: x.mean(0) + 1e-16, lax.map(square, keys))
        return jax.tree.map(lambda r: multiple(rate, r, classifier.examples, r**-0.5), noise)

    return jax.jit(lambda means: lax.map(of_seed, means))(means)


def _spreads(variance: Any, multiples: Any, key: Array) -> dict[str, Any]:
    """The variances of all arms that draw, trees like the parameters [seed, ...]."""

    def shuffled(variance: Any, key: Array) -> Any:
        flat, back = ravel_pytree(variance)
        return back(jax.random.permutation(key, flat))

    def level(variance: Any) -> Any:
        flat, back = ravel_pytree(variance)
        return back(jnp.full_like(flat, flat.mean()))

    keys = jax.random.split(key, len(jax.tree.leaves(variance)[0]))
    derived = jax.tree.map(jnp.multiply, multiples, variance)
    return {
        "draws": variance,
        "derived": derived,
        "derived, scaled": derived,
        "isotropic": jax.vmap(level)(variance),
        "permuted": jax.vmap(shuffled)(variance, keys),
    }
