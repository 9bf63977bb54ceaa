"""What a sample is nearest to among the training examples, and whether it is one of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int


class Neighbours(NamedTuple):
    """The nearest rows of a pool, the nearest first, and their Euclidean distances."""

    index: Int[np.ndarray, "Q k"]
    distance: Float[np.ndarray, "Q k"]


def nearest(queries: Float[np.ndarray, "Q ..."], pool: Float[np.ndarray, "N ..."], count: int) -> Neighbours:
    """The `count` rows of the pool that are nearest to each query, examples of any shape taken as vectors."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=min(count, len(pool)), algorithm="brute").fit(pool.reshape(len(pool), -1))
    distance, index = search.kneighbors(queries.reshape(len(queries), -1))
    return Neighbours(index, distance)


def copies(found: Neighbours, ratio: float = 1 / 3) -> Bool[np.ndarray, "Q"]:
    """Whether a query is a copy of its nearest neighbour: nearer to it than `ratio` times the mean distance to the
    others that were found (after Carlini et al. 2023, arXiv 2301.13188, section 4.2; their 50 others are best).

    A ratio and no bare distance: smooth samples are near to everything, a copy is near to one.
    """
    if found.distance.shape[1] < 2:
        raise ValueError("copies are told from at least two neighbours a query")
    return found.distance[:, 0] < ratio * found.distance[:, 1:].mean(axis=1)
