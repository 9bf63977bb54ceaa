"""Standard errors of numbers that are no means over examples. No metric itself."""

from __future__ import annotations

import math
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


def by_parts(score: Score, sets: Sequence[Shaped[np.ndarray, "..."]], parts: int) -> Any:
    """Standard error of `score(*sets)` from its spread over disjoint random parts of the sets.

    For scores made of nearest neighbours: a bootstrap puts copies of an example beside it, which changes what is near;
    parts only thin the sets out, which shifts every part's score alike.
    """
    generator = np.random.default_rng(0)
    divided = [np.array_split(generator.permutation(len(array)), parts) for array in sets]
    values = [score(*(array[rows] for array, rows in zip(sets, part, strict=True))) for part in zip(*divided)]  # noqa: B905
    return np.std(np.asarray(values, np.float64), axis=0, ddof=1) / math.sqrt(parts)
