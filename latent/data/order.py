"""Which examples a step sees: a pure function of (seed, step), so that resuming needs the step alone (law 3)."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Int


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, size: int) -> Int[np.ndarray, "n"]:
    return np.random.default_rng([seed, epoch]).permutation(size)


def indices(seed: int, step: int, size: int, batch_size: int) -> Int[np.ndarray, "B"]:
    """Indices of the batch at `step` into a split of `size` examples.

    Position p = step * batch_size + i of the endless sequence is example `order(seed, epoch)[j]` with
    epoch, j = divmod(p, size). Batches straddle epochs, and every epoch sees every example once.
    """
    first, found = step * batch_size, []
    end = first + batch_size
    while first < end:
        epoch, place = divmod(first, size)
        part = _permutation(seed, epoch, size)[place : place + end - first]
        found.append(part)
        first += len(part)
    return np.concatenate(found)
