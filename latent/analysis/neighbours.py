"""Nearest neighbours by Euclidean distance, exact: what they vote for, and whether a sample is a copy of one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from latent.errors import UserError


class Neighbours(NamedTuple):
    """The nearest rows of a pool, the nearest first, and their Euclidean distances."""

    index: Int[np.ndarray, "Q k"]
    distance: Float[np.ndarray, "Q k"]


def nearest(queries: Shaped[np.ndarray, "Q ..."], pool: Shaped[np.ndarray, "N ..."], count: int) -> Neighbours:
    """The `count` rows of the pool that are nearest to each query, examples of any shape taken as vectors.

    scikit-learn computes in float64, whatever it is given. UserError where the pool is smaller than `count`.
    """
    if len(pool) < count:
        raise UserError(f"{count} nearest neighbours need at least {count} examples to be among, not {len(pool)}.")
    from sklearn.neighbors import NearestNeighbors

    flat = lambda values: values.reshape(len(values), -1)  # noqa: E731
    search = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(flat(pool))
    distance, index = search.kneighbors(flat(queries))
    return Neighbours(index, distance)


def nearest_others(x: Shaped[np.ndarray, "N ..."]) -> Float[np.ndarray, "N"]:
    """Distance of every member of a set to the nearest other one; 0 for copies."""
    found = nearest(x, x, 2)
    # Among copies the first neighbour may be another one; either way the second column is an other or at distance 0.
    return np.where(found.index[:, 0] == np.arange(len(x)), found.distance[:, 1], found.distance[:, 0])


def vote(labels: Int[np.ndarray, "N k"]) -> Int[np.ndarray, "N"]:
    """The most frequent label of every row; among equally frequent ones the smallest."""
    counts = np.stack([np.sum(labels == label, axis=1) for label in range(labels.max() + 1)], axis=1)
    return counts.argmax(axis=1)


def classified(
    queries: Shaped[np.ndarray, "Q ..."],
    pool: Shaped[np.ndarray, "N ..."],
    labels: Int[np.ndarray, "N"],
    counts: tuple[int, ...],
) -> dict[int, Int[np.ndarray, "Q"]]:
    """{k: the label that the k nearest of the pool vote for, each with one vote}."""
    found = labels[nearest(queries, pool, max(counts)).index]
    return {k: vote(found[:, :k]) for k in counts}


def copies(found: Neighbours, ratio: float = 1 / 3) -> Bool[np.ndarray, "Q"]:
    """Whether a query is a copy of its nearest neighbour: nearer to it than `ratio` times the mean distance to the
    others that were found (after Carlini et al. 2023, arXiv 2301.13188, section 4.2; their 50 others are best).

    A ratio and no bare distance: smooth samples are near to everything, a copy is near to one.
    """
    if found.distance.shape[1] < 2:
        raise ValueError("copies are told from at least two neighbours a query")
    return found.distance[:, 0] < ratio * found.distance[:, 1:].mean(axis=1)
