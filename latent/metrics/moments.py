"""Mean and covariance of many features, in float64, from one chunk after the other. No metric itself.

Chunks are merged as in Chan, Golub & LeVeque 1979 (STAN-CS-79-773, eq. 2.1): no sum of squares is ever subtracted from
another one, so that features far from zero lose no digits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

CHUNK = 4096
"""Rows brought to float64 at a time."""


class Moments(NamedTuple):
    """`count` rows, their `mean`, and their `scatter`: the sum of outer products of deviations from it."""

    count: int
    mean: Float[np.ndarray, "d"]
    scatter: Float[np.ndarray, "d d"]

    @property
    def covariance(self) -> Float[np.ndarray, "d d"]:
        """The unbiased covariance: it divides by count - 1."""
        return self.scatter / (self.count - 1)


def of_chunks(chunks: Iterable[Float[np.ndarray, "n d"]]) -> Moments:
    """Moments of all rows of all chunks together; there must be one."""
    total = None
    for chunk in chunks:
        rows = np.asarray(chunk, np.float64)
        centred = rows - rows.mean(axis=0)
        found = Moments(len(rows), rows.mean(axis=0), centred.T @ centred)
        total = found if total is None else merged(total, found)
    return total


def of(features: Float[np.ndarray, "N d"], chunk: int = CHUNK) -> Moments:
    """Moments of the rows, of which never more than `chunk` are held in float64."""
    return of_chunks(features[start : start + chunk] for start in range(0, len(features), chunk))


def merged(a: Moments, b: Moments) -> Moments:
    """Moments of the rows of both."""
    count, between = a.count + b.count, b.mean - a.mean
    scatter = a.scatter + b.scatter + np.outer(between, between) * (a.count * b.count / count)
    return Moments(count, a.mean + between * (b.count / count), scatter)
