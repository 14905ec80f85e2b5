"""The hierarchy of memories: what its priors build, and what they call implied."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from numpyro import handlers

from beliefnav import beliefs, filters, inference
from beliefnav.inference.targets import density
from beliefnav.recording import from_arrays
from models import gradient_noise

pytestmark = pytest.mark.usefixtures("rank_promotion")

LABELS = ["a/weight[0,0]", "b/weight[3,1]", "a/weight[2,5]", "b/bias[0]"]
LAYERS = gradient_noise.Layers.of(LABELS)


def build(name: str, seed: int) -> tuple[Any, dict[str, Any]]:
    """A belief of the prior, and the sites that made it."""
    prior = gradient_noise.MODELS[name](LAYERS)
    with handlers.trace() as trace, handlers.seed(rng_seed=seed):
        belief = prior()
    return belief, {name: site["value"] for name, site in trace.items()}


def test_layers_are_the_arrays_that_labels_name() -> None:
    assert LAYERS.names == ("a/weight", "b/weight", "b/bias")
    assert LAYERS.position.tolist() == [0, 1, 0, 2]


@pytest.mark.parametrize("name", list(gradient_noise.MODELS))
def test_coordinates_of_a_layer_share_their_memory(name: str) -> None:
    belief, _ = build(name, 0)
    fields = [x for x in jax.tree.leaves(belief) if jnp.ndim(x)]
    assert fields
    for field in fields:
        assert field.shape == (4,)
        assert field[0] == field[2] != field[1]


def test_implied_first_memory_is_that_of_the_filter_in_the_long_run(x64: None) -> None:
    for seed in range(5):
        belief, sites = build("Ornstein-Uhlenbeck", seed)
        _, info = filters.filter_recording(belief, jnp.zeros((4000, 4)))
        rho = jax.nn.sigmoid(sites["correlation"])[LAYERS.position]
        # A correlation within 1e-3 of one settles within thousands of steps.
        np.testing.assert_allclose(
            sites["implied_beta1"][LAYERS.position], rho * (1 - info.gain[-1]), rtol=1e-3
        )


@pytest.mark.parametrize("name", ["local level", "precision walk"])
def test_implied_memory_of_a_discount_is_the_discount(name: str) -> None:
    belief, sites = build(name, 1)
    model: Any = belief.model if isinstance(belief, beliefs.UnknownNoise) else belief
    implied = sites["implied_beta1" if name == "local level" else "implied_beta2"]
    np.testing.assert_array_equal(model.discount, implied[LAYERS.position])


def test_memories_stay_short_of_zero_and_one() -> None:
    memory = gradient_noise.memory_of(jnp.array([-1e3, 0.0, 1e3]))
    assert 0 < memory[0] < 1e-5 and memory[1] == 0.5 and 1 - 1e-5 < memory[2] < 1


@pytest.mark.parametrize("name", list(gradient_noise.MODELS))
def test_all_models_have_the_scale_of_a_standardised_stream(name: str) -> None:
    # Student-t of the same unit scale and one degree of freedom, up to what is signal.
    belief, _ = build(name, 2)
    y = jnp.zeros((1, 4))
    recording = (y, y) if belief.filter().uses_displacement else (y,)
    _, info = filters.filter_recording(belief, *recording)
    assert bool(jnp.all(info.predictive_degrees_of_freedom <= 1))
    assert bool(jnp.all(info.predictive_scale >= 0.99))


def test_fixed_beliefs_are_those_of_adam_and_of_no_memory() -> None:
    level: Any = gradient_noise.fixed_local_level()
    walk: Any = gradient_noise.fixed_precision_walk()
    assert (level.model.discount, walk.discount) == (0.9, 0.999)
    # Whatever was seen before, the next gradient is believed to be zero on average.
    y = jnp.array([[5.0], [5.0], [5.0], [1.0]])
    _, info = filters.filter_recording(gradient_noise.white_noise(), y)
    np.testing.assert_allclose(info.innovation, y, atol=1e-6)


def test_standardised_streams_have_unit_root_mean_square_and_keep_their_holes() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 3)) * [1e-4, 1.0, 1e5]
    values[3, 1] = np.nan
    values[4, 0] = np.inf
    stream = from_arrays(values, np.zeros((50, 3)))
    result = gradient_noise.standardised(stream, slice(0, 40))
    finite = result["gradient"].where(np.isfinite(result["gradient"]))
    unit = (finite.isel(step=slice(0, 40)) ** 2).mean("step") ** 0.5
    np.testing.assert_allclose(unit, 1.0, rtol=1e-6)
    assert np.isnan(result["gradient"][3, 1]) and np.isinf(result["gradient"][4, 0])
    np.testing.assert_array_equal(result["displacement"], 0.0)
    restored = result["gradient"] * result["gradient_unit"]
    xr.testing.assert_allclose(restored.drop_attrs(), stream["gradient"])


@pytest.mark.parametrize("name", list(gradient_noise.MODELS))
def test_no_site_of_a_prior_has_the_name_of_one_of_its_belief(name: str) -> None:
    """Where the latent path is sampled too, both are in one program."""
    rng = np.random.default_rng(0)
    stream = from_arrays(rng.normal(size=(25, 4)), rng.normal(size=(25, 4)))
    prior = gradient_noise.MODELS[name](LAYERS)
    sites = {
        integrate: set(density(inference.target(prior, stream, integrate=integrate)).like)
        for integrate in (True, False)
    }
    assert sites[True] < sites[False]
