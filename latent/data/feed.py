"""From a training split to the inputs of a dispatch: what lies on the device, and what the host sends per step.

A set that fits the device budget lies there whole, as uint8; a dispatch then receives indices only. A larger one is
streamed: grain's threads read the examples of the next dispatches while the device works on this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import PyTree

from latent.data.arrays import Split
from latent.data.order import order, sequence
from latent.errors import UserError
from latent.types import Batch

AHEAD, AHEAD_BYTES = 8, 256 * 2**20
"""Dispatches that are read ahead, at most, and the memory they may take together; one is read ahead in any case."""

Inputs = dict[str, np.ndarray]


class Feed(NamedTuple):
    """Batches as a pure function of (seed, step), law 3: whether a set is resident or streamed changes none.

    resident    arrays to keep on every device
    inputs      (first step, number of steps) -> host arrays [S, B, ...], of the rows of the batch that were asked for
    fetch       (resident, inputs of one step) -> raw batch, inside the compiled dispatch
    step_bytes  size of the examples that the host sends for one step
    """

    resident: PyTree
    inputs: Callable[[int, int], Inputs]
    fetch: Callable[[PyTree, PyTree], Batch]
    step_bytes: int = 0


WHOLE = slice(None)
"""Rows of a batch: all of them."""


def build(split: Split, seed: int, batch_size: int, device_budget: int, workers: int, rows: slice = WHOLE) -> Feed:
    """The feed of a split: on the devices where it takes no more than `device_budget` bytes, else streamed.

    `rows` are the places in the batch that it gives, and for which it reads examples.
    """
    if workers < 1:
        raise UserError(f"data.workers={workers} must be at least 1.")
    if split.x.nbytes <= device_budget:
        return resident_feed(split, seed, batch_size, rows)
    return streamed_feed(split, seed, batch_size, workers, rows)


def resident_feed(split: Split, seed: int, batch_size: int, rows: slice = WHOLE) -> Feed:
    """Feed of a split that is kept on the devices."""

    def fetch(resident: PyTree, step_inputs: dict[str, Any]) -> Batch:
        index = step_inputs["index"]
        return {**{part: array[index] for part, array in resident.items()}, **step_inputs}

    return Feed(split.arrays(), _places(len(split.x), seed, batch_size, rows), fetch)


def streamed_feed(split: Split, seed: int, batch_size: int, workers: int = 1, rows: slice = WHOLE) -> Feed:
    """Feed of a split that is read as it is needed, by `workers` threads."""
    places = _places(len(split.x), seed, batch_size, rows)

    def read(first: int, count: int) -> Inputs:
        found = places(first, count)
        return {part: array[found["index"]] for part, array in split.arrays().items()} | found

    step_bytes = len(range(batch_size)[rows]) * split.x.nbytes // len(split.x)
    return Feed({}, _ReadAhead(read, workers, step_bytes), lambda resident, step_inputs: step_inputs, step_bytes)


def of_codes(feed: Feed) -> Feed:
    """The feed of a split whose `x` are codes, which a batch calls so."""

    def fetch(resident: PyTree, step_inputs: dict[str, Any]) -> Batch:
        batch = feed.fetch(resident, step_inputs)
        return {("codes" if part == "x" else part): array for part, array in batch.items()}

    return feed._replace(fetch=fetch)


def _places(size: int, seed: int, batch_size: int, rows: slice) -> Callable[[int, int], Inputs]:
    epochs = order(seed, size)

    def inputs(first: int, count: int) -> Inputs:
        # Batches follow each other in the sequence: those of a dispatch are one piece of it.
        index = sequence(epochs, size, first * batch_size, count * batch_size).reshape(count, batch_size)
        position = np.broadcast_to(np.arange(batch_size, dtype=np.int32), index.shape)
        return {"index": index[:, rows].astype(np.int32), "position": position[:, rows]}

    return inputs


def together(feeds: Sequence[Feed]) -> Feed:
    """The feeds of M runs on one split as one, whose inputs are [S, M, B, ...]."""

    def inputs(first: int, count: int) -> Inputs:
        parts = [feed.inputs(first, count) for feed in feeds]
        return {name: np.stack([part[name] for part in parts], axis=1) for name in parts[0]}

    return feeds[0]._replace(inputs=inputs, step_bytes=sum(feed.step_bytes for feed in feeds))


class _ReadAhead:
    """read(first step, number of steps), with the calls that are likely to follow already under way.

    What it returns depends on its arguments alone; only the time it takes depends on the calls before.
    """

    def __init__(self, read: Callable[[int, int], Inputs], workers: int, step_bytes: int):
        self._read, self._workers, self._step_bytes = read, workers, step_bytes
        self._expected: tuple[int, int] | None = None
        self._iterator: Iterator[Inputs] = iter(())

    def __call__(self, first: int, count: int) -> Inputs:
        if (first, count) != self._expected:
            self._iterator = self._start(first, count)
        self._expected = (first + count, count)
        return next(self._iterator)

    def _start(self, first: int, count: int) -> Iterator[Inputs]:
        import grain

        ahead = max(1, min(AHEAD, AHEAD_BYTES // (count * self._step_bytes)))
        options = grain.ReadOptions(num_threads=min(self._workers, ahead), prefetch_buffer_size=ahead)
        starts = grain.MapDataset.range(first, 2**62, count)
        return iter(starts.map(lambda start: self._read(int(start), count)).to_iter_dataset(options))
