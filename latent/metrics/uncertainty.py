"""Standard errors of numbers that are no means over examples. No metric itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

Score = Callable[..., Any]
"""Arrays of examples -> one number, or several."""


def bootstrap(score: Score, sets: Sequence[Shaped[np.ndarray, "..."]], resamplings: int, paired: bool = False) -> Any:
    """Standard deviation of `score(*sets)` when the examples of every set are drawn again with replacement (Efron
    1979); the same ones of all sets where they are `paired`."""
    generator = np.random.default_rng(0)
    values = []
    for _ in range(resamplings):
        if paired:
            rows = generator.integers(0, len(sets[0]), len(sets[0]))
            values.append(score(*(array[rows] for array in sets)))
        else:
            values.append(score(*(array[generator.integers(0, len(array), len(array))] for array in sets)))
    return np.std(np.asarray(values, np.float64), axis=0)


def by_halves(score: Score, sets: Sequence[Shaped[np.ndarray, "..."]], halvings: int) -> Any:
    """Standard error of `score(*sets)` from how much its values on two disjoint random halves of every set differ: half
    of their root mean square difference, as a variance falls with 1 / N.

    For scores made of nearest neighbours: a bootstrap puts copies of an example beside it, which changes what is near;
    halves only thin the sets out, which shifts both alike.
    """
    generator = np.random.default_rng(0)
    squares = []
    for _ in range(halvings):
        orders = [generator.permutation(len(array)) for array in sets]
        first = score(*(array[order[: len(order) // 2]] for array, order in zip(sets, orders, strict=True)))
        second = score(*(array[order[len(order) // 2 :]] for array, order in zip(sets, orders, strict=True)))
        squares.append((np.asarray(first) - np.asarray(second)) ** 2)
    return 0.5 * np.sqrt(np.mean(squares, axis=0))
