"""Which examples a step sees: a pure function of (seed, step), so that resuming needs the step alone (law 3)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Int

Order = Callable[[int], Int[np.ndarray, "n"]]
"""Epoch -> the order in which it sees the examples."""


def order(seed: int, size: int) -> Order:
    """The epochs of one seed; the last two are kept, for a batch may straddle them."""
    return functools.lru_cache(maxsize=2)(lambda epoch: np.random.default_rng([seed, epoch]).permutation(size))


def sequence(order: Order, size: int, first: int, count: int) -> Int[np.ndarray, "count"]:
    """Elements `first` and the `count - 1` after it of the endless sequence of epochs.

    Element p is example `order(epoch)[j]` with epoch, j = divmod(p, size): every epoch sees every example once.
    """
    found, end = [], first + count
    while first < end:
        epoch, place = divmod(first, size)
        part = order(epoch)[place : place + end - first]
        found.append(part)
        first += len(part)
    return np.concatenate(found)
