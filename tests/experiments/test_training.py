"""The one training loop of the experiments, the networks' problem, and the figures' page."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import figures, training
from experiments.timing import WARM_UP, median_seconds


def loss(params: Any, batch: Any) -> Any:
    return jnp.sum((params - batch) ** 2) / 2


def test_the_loop_takes_the_steps_of_a_loop_that_is_written_out() -> None:
    optimizer = optax.adam(0.1)
    params: Any = jnp.ones(3)
    batches = jnp.arange(12.0).reshape(4, 3)
    (trained, state), losses = training.train(
        loss, optimizer, (params, optimizer.init(params)), batches
    )
    expected = optimizer.init(params)
    for batch, value in zip(batches, losses, strict=True):
        # Compiled and not: in float32, and sums of squares of up to 11.
        np.testing.assert_allclose(value, loss(params, batch), rtol=1e-6)
        updates, expected = optimizer.update(params - batch, expected, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(trained, params, rtol=1e-6)
    assert int(optax.tree.get(state, "count")) == 4


def test_what_is_watched_sees_parameters_and_gradient_before_the_step() -> None:
    optimizer = optax.sgd(0.5)
    batches = jnp.array([[2.0], [4.0]])

    def watch(watched: Any, params: Any, gradient: Any, batch: Any) -> Any:
        return [*watched[1:], jnp.stack([params, gradient, batch])]

    start = jnp.zeros(1)
    carry = start, optimizer.init(start), [jnp.zeros((3, 1))] * 2
    (params, _, seen), _ = training.train(loss, optimizer, carry, batches, watch)
    # From 0 half of the way to 2, and from there half of the way to 4.
    np.testing.assert_array_equal(seen[0][:, 0], [0.0, -2.0, 2.0])
    np.testing.assert_array_equal(seen[1][:, 0], [1.0, -3.0, 4.0])
    assert float(params[0]) == 2.5


def test_a_problem_keeps_its_last_examples_for_validation() -> None:
    whole, part = training.make_problem(hidden=(4,)), training.make_problem(validation=0.1)
    assert whole.num_train == len(whole.data.train_labels) == 1437
    assert part.num_train == 1293
    drawn = part.batches(jax.random.split(jax.random.key(0), 50), 100)
    assert drawn.shape == (50, 100) and 0 <= drawn.min() and drawn.max() < part.num_train
    # 5,000 draws leave out about one in 48 of 1,293 examples: exp(-5000 / 1293).
    assert len(np.unique(drawn)) > 0.95 * part.num_train
    params = part.make(jax.random.key(1))
    labels = part.data.train_labels
    right = part.logits(params, part.data.train_inputs).argmax(-1) == labels
    assert float(part.validation_accuracy(params)) == pytest.approx(right[1293:].mean())
    every = part.loss(params, np.arange(1293))
    assert float(part.training_loss(params)) == pytest.approx(float(every), rel=1e-6)
    # Classes are as good as equally likely before training.
    assert float(every) == pytest.approx(np.log(10), abs=0.1)


def test_a_page_is_saved_and_closed_and_not_saved_after_an_error(tmp_path: Path) -> None:
    from matplotlib import pyplot

    with figures.page(tmp_path / "one.png", 1, 2, 2.0) as (left, right):
        figures.band(left, np.arange(3), np.ones((2, 3)), label="line")
        figures.legend_above(left)
        figures.note(right, "how to read it")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(RuntimeError, match="drawing"), figures.page(tmp_path / "two.png"):
        raise RuntimeError("drawing")
    assert not (tmp_path / "two.png").exists()
    assert pyplot.get_fignums() == []


def test_programs_take_turns_as_often_as_they_count_and_warm_up() -> None:
    calls = []
    programs = {name: lambda name=name: calls.append(name) for name in ("one", "other")}
    seconds = median_seconds(programs, repeats=5)
    assert set(seconds) == {"one", "other"} and min(seconds.values()) > 0
    rounds = np.array(calls).reshape(WARM_UP + 5, 2)
    assert (np.sort(rounds, 1) == ["one", "other"]).all()
