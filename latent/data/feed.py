"""From a training split to the inputs of a dispatch: what lies on the device, and what the host sends per step.

A set that fits the device budget lies there whole, as uint8; a dispatch then receives indices only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import PyTree

from latent.data.arrays import Split
from latent.data.order import order, sequence
from latent.errors import UserError
from latent.types import Batch


class Feed(NamedTuple):
    """Batches as a pure function of (seed, step), law 3.

    resident  arrays to keep on every device
    inputs    (first step, number of steps) -> host arrays [S, B, ...]
    fetch     (resident, inputs of one step) -> raw batch, inside the compiled dispatch
    """

    resident: PyTree
    inputs: Callable[[int, int], dict[str, np.ndarray]]
    fetch: Callable[[PyTree, PyTree], Batch]


def resident_feed(split: Split, seed: int, batch_size: int, device_budget: int) -> Feed:
    """Feed of a split that is kept on the devices; `device_budget` is in bytes."""
    if split.x.nbytes > device_budget:
        raise UserError(f"data.device_budget={device_budget} bytes: this set takes {split.x.nbytes} bytes on a device.")

    size, epochs = len(split.x), order(seed, len(split.x))

    def inputs(first: int, count: int) -> dict[str, np.ndarray]:
        # Batches follow each other in the sequence: those of a dispatch are one piece of it.
        index = sequence(epochs, size, first * batch_size, count * batch_size).reshape(count, batch_size)
        position = np.broadcast_to(np.arange(batch_size, dtype=np.int32), index.shape)
        return {"index": index.astype(np.int32), "position": position}

    def fetch(resident: PyTree, step_inputs: dict[str, Any]) -> Batch:
        index = step_inputs["index"]
        return {**{part: array[index] for part, array in resident.items()}, **step_inputs}

    return Feed(split.arrays(), inputs, fetch)


def together(feeds: Sequence[Feed]) -> Feed:
    """The feeds of several runs on one split as one, whose inputs are [S, M, B, ...]; a single run's stays as it is."""
    if len(feeds) == 1:
        return feeds[0]

    def inputs(first: int, count: int) -> dict[str, np.ndarray]:
        parts = [feed.inputs(first, count) for feed in feeds]
        return {name: np.stack([part[name] for part in parts], axis=1) for name in parts[0]}

    return feeds[0]._replace(inputs=inputs)
