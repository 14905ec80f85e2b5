"""Tasks with a time axis: signals that a GRU reads, and text that a transformer goes on with."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from experiments import data as data_sets
from experiments.networks import functional
from experiments.tasks.images import classification, split
from experiments.tasks.task import Score, Task
from experiments.training import mean_cross_entropy

SPAN = 4
"""Entries of a signal that the GRU reads at once."""
CONTEXT = 32
"""Characters that a transformer sees at the most."""
TOPICS = (
    *("assignment", "calls", "comparisons", "customization", "formatstrings", "import"),
    *("objects", "raise", "typesseq"),
)
"""Topics of Python's help whose text is the same in Python 3.11.7 and 3.12.1."""
GROUP = 25
"""Neighbouring windows that fall to one split: of ten groups one validates, and one tests."""
WINDOWS = 8
"""Windows in a batch."""
SCORED = 400
"""The most windows of a split that are scored, the first ones."""


def gru_mnist1d() -> Task:
    """Signals of length 40, 3,200 to train on, and a GRU of 32 units that reads them in 10 steps.

    Logits are linear in its last state.
    """
    parts = split(data_sets.load("mnist1d"), train=3200, validation=800, test=1000)
    return classification(parts, Recurrent, steps=1500, batch=64)


class Recurrent(eqx.Module):
    """A GRU along a signal, and one linear layer."""

    cell: eqx.nn.GRUCell
    linear: eqx.nn.Linear

    def __init__(self, input_shape: tuple[int, ...], num_classes: int, key: Array) -> None:
        """Draw the weights; the length of a signal is a multiple of `SPAN`."""
        del input_shape
        keys = jax.random.split(key)
        self.cell = eqx.nn.GRUCell(SPAN, 32, key=keys[0])
        self.linear = eqx.nn.Linear(32, num_classes, key=keys[1])

    def __call__(self, x: Array) -> Array:
        """Logits of one signal."""

        def step(state: Array, read: Array) -> tuple[Array, None]:
            return self.cell(read, state), None

        last, _ = lax.scan(step, jnp.zeros(self.cell.hidden_size), x.reshape(-1, SPAN))
        return self.linear(last)


def text_transformer() -> Task:
    """Text of Python's help, 86,000 characters to train on, and a transformer with two blocks.

    It has a width of 32 and four heads, and says the next character at every one of 32. An example
    is a character, and its mean loss, in nats, stands in place of the share of errors too.
    """
    windows, size = text()
    init, logits = functional(lambda key: Transformer(size, key))
    train = windows["train"]

    def mean_loss(params: Any, windows: Array) -> Array:
        return mean_cross_entropy(logits(params, windows[:, :-1]), windows[:, 1:])

    def loss(params: Any, key: Array) -> Array:
        return mean_loss(params, train[jax.random.randint(key, (WINDOWS,), 0, len(train))])

    def score(params: Any, split: str) -> Score:
        nats = mean_loss(params, windows[split][:SCORED])
        return Score(nats, nats)

    return Task(init, loss, score, steps=600, batch=WINDOWS * CONTEXT)


def text() -> tuple[dict[str, Array], int]:
    """Split -> windows of 33 characters as numbers [window, character], and how many there are."""
    from pydoc_data import topics

    joined = "".join(topics.topics[name] for name in TOPICS)
    known, numbers = np.unique(list(joined), return_inverse=True)
    whole = len(joined) // (CONTEXT + 1) * (CONTEXT + 1)
    windows = jnp.asarray(numbers[:whole].reshape(-1, CONTEXT + 1), jnp.int32)
    tenth = np.arange(len(windows)) // GROUP % 10
    parts = {"train": tenth < 8, "validation": tenth == 8, "test": tenth == 9}
    return {name: windows[chosen] for name, chosen in parts.items()}, len(known)


class Block(eqx.Module):
    """Attention to what came before, and a perceptron, each added to what it reads."""

    attention: eqx.nn.MultiheadAttention
    perceptron: eqx.nn.MLP
    norms: list[eqx.nn.LayerNorm]

    def __init__(self, width: int, key: Array) -> None:
        """Draw the weights."""
        keys = jax.random.split(key)
        self.attention = eqx.nn.MultiheadAttention(4, width, key=keys[0])
        self.perceptron = eqx.nn.MLP(width, width, 4 * width, 1, jax.nn.gelu, key=keys[1])
        self.norms = [eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width)]

    def __call__(self, x: Array) -> Array:
        """[character, feature] of one window."""
        read = jax.vmap(self.norms[0])(x)
        x = x + self.attention(read, read, read, jnp.tri(len(x), dtype=bool))
        return x + jax.vmap(self.perceptron)(jax.vmap(self.norms[1])(x))


class Transformer(eqx.Module):
    """Characters and their places embedded, blocks, and logits of what comes next."""

    characters: eqx.nn.Embedding
    places: Array
    blocks: list[Block]
    norm: eqx.nn.LayerNorm
    linear: eqx.nn.Linear

    def __init__(self, size: int, key: Array, width: int = 32, depth: int = 2) -> None:
        """Draw the weights for so many different characters."""
        keys = jax.random.split(key, 3 + depth)
        self.characters = eqx.nn.Embedding(size, width, key=keys[0])
        self.places = 0.02 * jax.random.normal(keys[1], (CONTEXT, width))
        self.blocks = [Block(width, key) for key in keys[3:]]
        self.norm = eqx.nn.LayerNorm(width)
        self.linear = eqx.nn.Linear(width, size, key=keys[2])

    def __call__(self, window: Array) -> Array:
        """Logits [character, next one] of one window."""
        x = self.characters.weight[window] + self.places[: len(window)]
        for block in self.blocks:
            x = block(x)
        return jax.vmap(self.linear)(jax.vmap(self.norm)(x))
