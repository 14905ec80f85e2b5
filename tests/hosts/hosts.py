"""Hosts: the loops of other libraries that an optimizer is put into.

Each trains two layers of two arrays on the same loss, by its own means, and shows the parameters
and the state of the optimizer before the first step and after each.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import optax
import optimistix as optx
from flax import linen, nnx
from flax.training.train_state import TrainState
from jax import Array

PyTree = Any
Optimizer = optax.GradientTransformationExtraArgs
Extra = Callable[[PyTree], Mapping[str, Any]]
"""From parameters to what else ``update`` is given."""

STEPS = 3
WIDTH = 3


def loss(params: PyTree) -> Array:
    """A loss that can be taken of arrays in any tree, of another slope for each entry."""
    terms = (jnp.sum(jnp.square(x) + jnp.sin(2 * x)) for x in jax.tree.leaves(params))
    return sum(terms, jnp.zeros(()))


class Seen(NamedTuple):
    """The parameters, and the state of the optimizer."""

    params: PyTree
    opt_state: Any


class Host(NamedTuple):
    """A host.

    Attributes:
        train: from an optimizer, and what else ``update`` is to be given, to what is seen before
            the first step and after each.
        forwards: whether it passes on what else ``update`` is to be given.
    """

    train: Callable[[Optimizer, Extra], Iterator[Seen]]
    forwards: bool = False


# --- flax ---------------------------------------------------------------------------------------


class NNX(nnx.Module):
    """Two layers of flax.nnx."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.second = nnx.Linear(WIDTH, WIDTH, rngs=rngs)


def train_nnx(optimizer: Optimizer, extra: Extra) -> Iterator[Seen]:
    """``nnx.Optimizer``."""
    model = NNX(nnx.Rngs(0))
    host = nnx.Optimizer(model, optimizer, wrt=nnx.Param)

    @nnx.jit
    def step(model: NNX, host: nnx.Optimizer) -> None:
        grads = nnx.grad(lambda model: loss(nnx.state(model, nnx.Param)))(model)
        host.update(model, grads, **extra(nnx.state(model, nnx.Param)))

    for taken in range(STEPS + 1):
        yield Seen(nnx.as_pure(nnx.state(model, nnx.Param)), host.opt_state)
        if taken < STEPS:
            step(model, host)


class Linen(linen.Module):
    """Two layers of flax.linen, with kernels in boxes that say how to shard them, or not."""

    boxed: bool

    @linen.compact
    def __call__(self, x: Array) -> Array:
        init = linen.initializers.lecun_normal()
        if self.boxed:
            init = linen.with_partitioning(init, (None, "model"))
        return linen.Dense(WIDTH, kernel_init=init)(linen.Dense(WIDTH, kernel_init=init)(x))


def train_linen(optimizer: Optimizer, extra: Extra, *, boxed: bool) -> Iterator[Seen]:
    """``TrainState``, which has no place for what else ``update`` is to be given."""
    del extra
    model = Linen(boxed)
    params = model.init(jax.random.key(0), jnp.ones((1, WIDTH)))["params"]
    state = TrainState.create(apply_fn=model.apply, params=params, tx=optimizer)
    step = jax.jit(lambda state: state.apply_gradients(grads=jax.grad(loss)(state.params)))
    yield Seen(state.params, state.opt_state)
    for _ in range(STEPS):
        state = step(state)
        yield Seen(state.params, state.opt_state)


# --- equinox and optimistix ---------------------------------------------------------------------


def network() -> tuple[eqx.nn.Linear, ...]:
    keys = jax.random.split(jax.random.key(0))
    return tuple(eqx.nn.Linear(WIDTH, WIDTH, key=key) for key in keys)


def train_equinox(optimizer: Optimizer, extra: Extra) -> Iterator[Seen]:
    """The loop that equinox shows."""
    model = network()
    state: Any = optimizer.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model: Any, state: Any) -> Any:
        grads = eqx.filter_grad(loss)(model)
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, state = optimizer.update(grads, state, params, **extra(params))
        return eqx.apply_updates(model, updates), state

    yield Seen(model, state)
    for _ in range(STEPS):
        model, state = step(model, state)
        yield Seen(model, state)


def train_optimistix(optimizer: Optimizer, extra: Extra) -> Iterator[Seen]:
    """``OptaxMinimiser``, step by step."""
    del extra

    def of_args(y: Any, args: Any) -> tuple[Array, None]:
        del args
        return loss(y), None

    solver = optx.OptaxMinimiser(optimizer, rtol=0.0, atol=0.0)
    number = jax.ShapeDtypeStruct((), jnp.float32)
    y: Any = network()
    state: Any = solver.init(of_args, y, None, {}, number, None, frozenset())
    step = eqx.filter_jit(lambda y, state: solver.step(of_args, y, None, {}, state, frozenset()))
    yield Seen(y, state.opt_state)
    for _ in range(STEPS):
        y, state, _ = step(y, state)
        yield Seen(y, state.opt_state)


# --- numpyro and blackjax -----------------------------------------------------------------------


def layer(seed: int) -> Any:
    kernel = jax.random.normal(jax.random.key(seed), (WIDTH, WIDTH))
    return {"bias": jnp.zeros(WIDTH), "kernel": kernel}


def train_numpyro(optimizer: Optimizer, extra: Extra) -> Iterator[Seen]:
    """``SVI``, of parameters without a prior."""
    del extra

    def model() -> None:
        params = [numpyro.param(f"layer {seed}", layer(seed)) for seed in range(2)]
        numpyro.factor("log density", -loss(params))

    svi = numpyro.infer.SVI(model, lambda: None, optimizer, numpyro.infer.Trace_ELBO())
    state = svi.init(jax.random.key(0))
    step = jax.jit(svi.update)
    yield Seen(*state.optim_state[1])
    for _ in range(STEPS):
        state, _ = step(state)
        yield Seen(*state.optim_state[1])


def train_blackjax(optimizer: Optimizer, extra: Extra) -> Iterator[Seen]:
    """``meanfield_vi``, whose parameters are means and deviations."""
    del extra
    vi = blackjax.meanfield_vi(lambda position: -loss(position), optimizer, num_samples=2)
    state: Any = vi.init(layer(0))
    step = jax.jit(vi.step)
    yield Seen((state.mu, state.rho), state.opt_state)
    for key in jax.random.split(jax.random.key(1), STEPS):
        with jax.numpy_rank_promotion("allow"):
            state, _ = step(key, state)
        yield Seen((state.mu, state.rho), state.opt_state)


HOSTS = {
    "flax.nnx": Host(train_nnx, forwards=True),
    "flax.linen": Host(partial(train_linen, boxed=False)),
    "flax.linen, boxed": Host(partial(train_linen, boxed=True)),
    "equinox": Host(train_equinox, forwards=True),
    "optimistix": Host(train_optimistix),
    "numpyro": Host(train_numpyro),
    "blackjax": Host(train_blackjax),
}
