"""Law 3: batches are a pure function of (seed, step)."""

from __future__ import annotations

import numpy as np
import pytest

from latent.data.arrays import Split
from latent.data.feed import resident_feed
from latent.data.order import order, sequence


def indices(seed, step, size, batch_size):
    return sequence(order(seed, size), size, step * batch_size, batch_size)


def specification(seed, step, size, batch_size):
    epochs, places = np.divmod(step * batch_size + np.arange(batch_size), size)
    order = lambda epoch: np.random.default_rng([seed, epoch]).permutation(size)  # noqa: E731
    return np.array([order(epoch)[place] for epoch, place in zip(epochs, places, strict=True)])


@pytest.mark.parametrize(("size", "batch_size"), [(10, 3), (12, 4), (7, 7), (5, 13)])
def test_order_is_its_specification(size, batch_size):
    for step in (0, 1, 2, 3, 50):
        np.testing.assert_array_equal(
            indices(4, step, size, batch_size), specification(4, step, size, batch_size), strict=False
        )


def test_every_epoch_sees_every_example_once_and_in_another_order():
    epochs = np.concatenate([indices(0, step, 10, 4) for step in range(10)]).reshape(4, 10)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.broadcast_to(np.arange(10), (4, 10)))
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_seeds_differ():
    assert not np.array_equal(indices(0, 0, 100, 50), indices(1, 0, 100, 50))


def test_a_feed_gives_the_examples_of_its_indices():
    x = np.arange(40, dtype=np.uint8).reshape(10, 4)
    feed = resident_feed(Split(x, np.arange(10, dtype=np.int32)), seed=3, batch_size=4)
    inputs = feed.inputs(5, 2)
    assert inputs["index"].shape == inputs["position"].shape == (2, 4)
    for row in range(2):
        batch = feed.fetch(feed.resident, {name: value[row] for name, value in inputs.items()})
        expected = indices(3, 5 + row, 10, 4)
        np.testing.assert_array_equal(batch["x"], x[expected])
        np.testing.assert_array_equal(batch["label"], expected)
        np.testing.assert_array_equal(batch["position"], np.arange(4))
