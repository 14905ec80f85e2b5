"""Records check the numbers of a person, and not what a transformation puts in their place."""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from jax.typing import ArrayLike

from beliefnav._checks import POSITIVE, UNIT_INTERVAL, Checked


class Level(Checked):
    ranges: ClassVar = {"discount": UNIT_INTERVAL, "noise_variance": POSITIVE}

    discount: ArrayLike
    noise_variance: ArrayLike | None = 1.0
    name: str = eqx.field(default="level", static=True)


class Doubled(Level):
    """A subclass with a check of its own."""

    def __check_init__(self) -> None:
        if self.name == "twice":
            raise ValueError("Doubled: twice.")


@pytest.mark.parametrize("value", [2, 2.0, -0.1, float("nan")])
def test_numbers_out_of_range_are_named(value: float):
    message = rf"^Level: discount must be in \[0, 1\], got {value!r}\.$"
    with pytest.raises(ValueError, match=message):
        Level(value)
    with pytest.raises(ValueError, match=message):
        Level(discount=value, noise_variance=2.0)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(Level(0.5), discount=value)


def test_every_range_is_checked():
    with pytest.raises(ValueError, match="Level: noise_variance must be a positive, finite number"):
        Level(0.5, 0.0)


def test_a_subclass_inherits_the_ranges_and_adds_a_check():
    with pytest.raises(ValueError, match="Doubled: discount must be"):
        Doubled(2.0)
    with pytest.raises(ValueError, match="Doubled: twice"):
        Doubled(0.5, name="twice")


def test_tracers_and_what_is_no_number_pass():
    with pytest.raises(ValueError, match="Level: discount must be in"):
        Level(jnp.asarray(-1.0))
    assert Level(0.5, None).noise_variance is None
    assert jax.jit(lambda x: Level(x).discount)(jnp.asarray(-2.0)) == -2


def test_rebuilding_a_record_does_not_validate():
    level = Level(0.5)
    assert jax.tree.map(lambda _: False, level).noise_variance is False  # False is 0, not positive
    assert jax.tree.map(lambda x: -x, level).noise_variance == -1
    numbers, rest = eqx.partition(level, lambda x: x == 0.5)
    assert (numbers.discount, numbers.noise_variance) == (0.5, None)
    assert eqx.tree_equal(eqx.combine(numbers, rest), level)


def test_a_record_of_axes_does_not_validate():
    levels = Level(jnp.array([0.1, 0.2]), jnp.asarray(3.0))
    axes = jax.tree.map(lambda x: 0 if x.ndim else None, levels)  # 0 is no noise variance
    total = jax.vmap(lambda m: m.discount + m.noise_variance, in_axes=(axes,))(levels)
    assert jnp.array_equal(total, jnp.array([3.1, 3.2]))
    both = Level(jnp.array([0.1, 0.2]), jnp.array([3.0, 4.0]))
    axes = jax.tree.map(lambda _: 0, both)
    total = jax.vmap(lambda m: m.discount + m.noise_variance, in_axes=(axes,))(both)
    assert jnp.array_equal(total, jnp.array([3.1, 4.2]))
