"""The boxes of flax are seen through: paths, layers, masks and priors are those of the parameters.

flax.nnx gives ``init`` parameters in boxes and ``update`` bare arrays, and reads the state back in
boxes of its own. flax.linen may box parameters for good.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training.train_state import TrainState
from jax.sharding import PartitionSpec

from beliefnav import (
    Objective,
    beliefs,
    control,
    navigator,
    posterior,
    recording,
    rules,
    sample_params,
    wrappers,
)
from beliefnav._trees import fitted, named_leaves, unboxed
from tests.hosts.hosts import HOSTS, NNX, Linen, loss
from tests.hosts.test_hosts import Optimizer, assert_close, nothing

PyTree = Any

NAMES = ["first/bias", "first/kernel", "second/bias", "second/kernel"]


def in_boxes() -> PyTree:
    return nnx.state(NNX(nnx.Rngs(0)), nnx.Param)


def in_dicts() -> PyTree:
    return nnx.to_pure_dict(in_boxes())


def in_host(optimizer: Optimizer) -> tuple[PyTree, PyTree]:
    """Parameters and state after three steps of flax.nnx."""
    *_, seen = HOSTS["flax.nnx"].train(optimizer, nothing)
    return seen.params, seen.opt_state


def in_loop(optimizer: Optimizer) -> tuple[PyTree, PyTree]:
    """Parameters and state after three steps of a plain loop on dicts."""
    params = in_dicts()
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


# --- paths --------------------------------------------------------------------------------------


def linen_params(boxed: bool) -> PyTree:
    return Linen(boxed).init(jax.random.key(0), jnp.ones((1, 3)))["params"]


@pytest.mark.parametrize(
    ("params", "names"),
    [
        (in_boxes, NAMES),
        (lambda: nnx.as_pure(in_boxes()), NAMES),
        (lambda: jax.eval_shape(in_boxes), NAMES),
        (lambda: {"box of a box": nnx.Param(nnx.Param(jnp.ones(1)))}, ["box of a box"]),
        (lambda: {"value": {"value": nnx.Param(jnp.ones(1))}}, ["value/value"]),
        (lambda: linen_params(True), [name for name, _ in named_leaves(linen_params(False))]),
    ],
)
def test_a_box_is_no_part_of_a_path(params: Callable[[], PyTree], names: list[str]) -> None:
    assert [name for name, _ in named_leaves(params())] == names
    bare = jax.tree.leaves_with_path(unboxed(params()))
    assert [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in bare] == names


def test_what_is_masked_inside_of_a_box_is_no_parameter() -> None:
    """As ``optax.masked`` leaves it, of a mask that is a function."""
    params = jax.tree.map(lambda x: x if x.ndim > 1 else optax.MaskedNode(), in_boxes())
    assert [name for name, _ in named_leaves(params)] == NAMES[1::2]
    values = fitted("owner", "value", in_dicts(), params)
    assert jax.tree.structure(values) == jax.tree.structure(params)


def test_a_parameter_is_refused_under_its_own_name() -> None:
    params = {"steps": nnx.Param(jnp.arange(3))}
    with pytest.raises(ValueError, match="about parameter 'steps' of dtype int32"):
        rules.adam(0.1).init(params)


def test_a_layer_is_not_hidden_by_a_box() -> None:
    """Biases are all 0, and so believed to vary as the kernel beside them does."""
    assert_close(beliefs.initial_variance(in_boxes()), beliefs.initial_variance(in_dicts()))
    kernels = [jnp.var(layer["kernel"]) for layer in in_dicts().values()]
    biases = [layer["bias"] for layer in beliefs.initial_variance(in_dicts()).values()]
    assert_close(biases, kernels)


@pytest.mark.parametrize("host", ["flax.nnx", "flax.linen, boxed"])
@pytest.mark.parametrize("coordinates", [2, {"{}/kernel": [8, 3], "{}/bias": 1}])
def test_a_recording_is_of_the_parameters(host: str, coordinates: Any) -> None:
    first = {"flax.nnx": "first"}.get(host, "Dense_0")
    if not isinstance(coordinates, int):
        coordinates = {path.format(first): indices for path, indices in coordinates.items()}
    optimizer = recording.record(
        rules.hazard_filter(0.01, examples=8),
        coordinates=coordinates,
        capacity=4,
        key=jax.random.key(0),
    )
    *_, seen = HOSTS[host].train(optimizer, nothing)
    data = recording.to_dataset(seen.opt_state, seen.params)
    bare = recording.to_dataset(seen.opt_state, unboxed(seen.params))
    assert data.identical(bare)
    if not isinstance(coordinates, int):
        labels = [f"{first}/bias[1]", f"{first}/kernel[2,2]", f"{first}/kernel[1,0]"]
        assert data.param.values.tolist() == labels
    assert all(np.isfinite(data[name]).all() for name in ("gradient", "displacement"))
    bias = data.isel(param=0)  # the paths are sorted; all biases of a layer move alike
    assert str(bias.param.values).startswith(f"{first}/bias[")
    moved = np.cumsum(bias.displacement.values)
    assert_close(moved[-1], unboxed(seen.params)[first]["bias"][1])  # which started at 0
    before = np.concatenate([[0], moved[:-1]])
    assert_close(bias.gradient.values, 2 * before + 2 * np.cos(2 * before))


def test_draws_are_parameters_of_the_host() -> None:
    params, state = in_host(rules.hazard_filter(0.01, examples=8))
    draw = sample_params(state, jax.random.key(0))
    assert jax.tree.structure(draw) == jax.tree.structure(params)
    model = NNX(nnx.Rngs(1))
    nnx.update(model, draw)
    assert_close(nnx.as_pure(nnx.state(model, nnx.Param)), draw)


# --- masks and priors ---------------------------------------------------------------------------

FIRST = {"first": True, "second": False}
MASKS: dict[str, Callable[[], Any]] = {
    "map_state": lambda: nnx.map_state(lambda path, _: path[0] == "first", in_boxes()),
    "prefix": lambda: nnx.State(FIRST),
    "dict": lambda: FIRST,
    "tree of dicts": lambda: {name: {"bias": x, "kernel": x} for name, x in FIRST.items()},
    "boxes": lambda: jax.tree.map_with_path(lambda p, _: p[0].key == "first", in_boxes()),
    "function": lambda: (
        lambda params: jax.tree.map_with_path(lambda path, _: path[0].key == "first", params)
    ),
}


@pytest.mark.parametrize("mask", MASKS)
def test_a_mask_of_two_hypothesis_may_be_as_one_of_optax(mask: str) -> None:
    def wrapped(mask: Any) -> Optimizer:
        return wrappers.two_hypothesis(rules.adam(0.1), 0.5, 1.0, mask=mask, value_fn=loss)

    params, state = in_host(wrapped(MASKS[mask]()))
    want, plain = in_loop(wrapped(MASKS["tree of dicts"]()))
    assert_close(params, want)
    assert_close(state.switch_probability, plain.switch_probability)
    other, _ = in_loop(wrapped(None))
    assert not np.allclose(other["second"]["kernel"], want["second"]["kernel"], rtol=1e-3)


PRIORS: dict[str, Callable[[], Any]] = {
    "map_state": lambda: nnx.map_state(
        lambda path, _: 0.1 if path[0] == "first" else 0.3, in_boxes()
    ),
    "prefix": lambda: nnx.State({"first": 0.1, "second": 0.3}),
    "boxes": lambda: jax.tree.map_with_path(
        lambda p, x: jnp.full_like(x, 0.1 if p[0].key == "first" else 0.3), in_boxes()
    ),
    "tree of dicts": lambda: {
        name: {"bias": x, "kernel": x} for name, x in {"first": 0.1, "second": 0.3}.items()
    },
}


@pytest.mark.parametrize("prior", PRIORS)
def test_a_prior_variance_may_be_a_tree_of_the_host(prior: str) -> None:
    build = partial(rules.hazard_filter, 0.01, examples=8)
    params, state = in_host(build(PRIORS[prior]()))
    want, plain = in_loop(build(PRIORS["tree of dicts"]()))
    assert_close(params, want)
    assert_close(posterior(state), posterior(plain))


def metric(params: PyTree) -> PyTree:
    return jax.tree.map(lambda x: 1 + x**2, params)


def of_policy(policy: control.Policy) -> Optimizer:
    belief = beliefs.independent(
        gradient=beliefs.LocalLevel(0.9), curvature=beliefs.PrecisionWalk(0.99)
    )
    return navigator(0.1, belief, policy)


GIVEN: dict[str, Callable[[Any], Optimizer]] = {
    "natural_gradient": lambda tree: rules.natural_gradient(0.1, metric=tree),
    "ballistic": lambda tree: of_policy(control.ballistic(metric=tree)),
    "horizon": lambda tree: of_policy(
        control.horizon(Objective(discount=0.5, metric=tree), time_step=0.1)
    ),
    "resetting": lambda tree: of_policy(control.resetting(0.1, 0.5, prior_mean=tree)),
}


@pytest.mark.parametrize("policy", GIVEN)
def test_what_a_policy_is_given_may_be_a_tree_of_the_host(policy: str) -> None:
    params, _ = in_host(GIVEN[policy](metric(in_boxes())))
    want, _ = in_loop(GIVEN[policy](metric(in_dicts())))
    assert_close(params, want)
    other, _ = in_loop(GIVEN[policy](jax.tree.map(jnp.ones_like, in_dicts())))
    assert not np.allclose(other["second"]["kernel"], want["second"]["kernel"], rtol=1e-3)


def test_gradients_of_examples_may_be_in_boxes_or_not() -> None:
    params, optimizer = linen_params(True), rules.hazard_filter(0.01, examples=8)
    examples = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), params)
    boxed, bare = (
        optimizer.update(params, optimizer.init(params), params, per_example_grads=given)
        for given in (examples, unboxed(examples))
    )
    assert jax.tree.structure(boxed) == jax.tree.structure(bare)
    assert_close(bare, boxed)
    with pytest.raises(ValueError, match=r"of parameter 'Dense_0/bias' must .*\(3,\)"):
        optimizer.update(params, optimizer.init(params), params, per_example_grads=unboxed(params))


def test_an_own_prior_made_of_that_of_each_array_is_taken() -> None:
    own = jax.tree.map(lambda v: 2 * v, beliefs.initial_variance(in_boxes()))
    _, state = in_host(rules.hazard_filter(0.0, own, examples=1e-30))  # nothing is learned
    twice = jax.tree.map(lambda v: 2 * v, beliefs.initial_variance(in_dicts()))
    variance = posterior(state).distance_variance
    assert_close(jax.tree.map(jnp.max, variance), twice)


@pytest.mark.parametrize(
    ("mask", "fault"),
    [
        ({"first": True}, "it has nothing for 'second/bias', and"),
        ({"first": True, "second": True, "third": True}, "it has 'third', and they are first/bias"),
        ({**FIRST, "first": {"kernel": True}}, "it has nothing for 'first/bias'"),
        ({**FIRST, "first": {"bias": {"b": True}, "kernel": True}}, "nothing for 'first/bias'"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_in_a_line(mask: Any, fault: str) -> None:
    optimizer = wrappers.two_hypothesis(rules.adam(0.1), 0.5, 1.0, mask=mask)
    with pytest.raises(ValueError, match=f"mask must be like the parameters.*{fault}") as caught:
        nnx.Optimizer(NNX(nnx.Rngs(0)), optimizer, wrt=nnx.Param)
    assert "\n" not in str(caught.value) and all(name in str(caught.value) for name in NAMES)


def test_many_parameters_are_not_all_listed() -> None:
    params = {f"p{n:02d}": jnp.ones(1) for n in range(60)}
    with pytest.raises(ValueError, match="they are p00, .* p07 and 52 more. Give"):
        fitted("owner", "value", {}, params)


# --- what boxes say -----------------------------------------------------------------------------


def test_the_state_is_sharded_as_the_boxes_say() -> None:
    """flax reads it off the boxes, which the state therefore keeps."""
    init = nnx.with_partitioning(nnx.initializers.ones, (None, "model"), eager_sharding=False)
    model = nnx.Linear(3, 4, kernel_init=init, rngs=nnx.Rngs(0))
    host = nnx.Optimizer(model, rules.adam(0.1), wrt=nnx.Param)
    specs = nnx.to_pure_dict(nnx.get_partition_spec(nnx.state(host)))
    kernels = [s for p, s in jax.tree.leaves_with_path(specs) if "'kernel'" in str(p)]
    assert kernels == [PartitionSpec(None, "model")] * 2  # the mean, and the second moment

    apply = linen.Dense(4).apply
    state = TrainState.create(apply_fn=apply, params=linen_params(True), tx=rules.adam(0.1))
    found = jax.tree.leaves_with_path(linen.get_partition_spec(state).opt_state)
    kernels = [spec for path, spec in found if "'kernel'" in str(path)]
    assert kernels == [PartitionSpec(None, "model")] * 4


# --- what a host drops --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "missing"),
    [
        (lambda: rules.newton(0.1), "without curvature"),
        (lambda: wrappers.two_hypothesis(optax.adam(0.1), 0.1, 8), "needs value and value_fn"),
    ],
)
def test_an_argument_that_a_train_state_drops_is_missed(
    optimizer: Callable[[], Optimizer], missing: str
) -> None:
    params = linen_params(False)
    state = TrainState.create(apply_fn=linen.Dense(3).apply, params=params, tx=optimizer())
    with pytest.raises(TypeError, match=rf"{missing}.*TrainState.apply_gradients, call update"):
        state.apply_gradients(grads=params)
