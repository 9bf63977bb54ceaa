"""Nearest neighbours by Euclidean distance, exact and in bounded memory, and what they vote for. No metric itself."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Shaped

from latent.errors import UserError


def nearest(
    x: Shaped[np.ndarray, "N ..."], among: Shaped[np.ndarray, "M ..."], count: int = 1
) -> tuple[Float[np.ndarray, "N count"], Int[np.ndarray, "N count"]]:
    """Distances to the `count` nearest members of `among` and their indices, nearest first; examples of any shape.

    float64 throughout: squared distances in float32 flip near ties. UserError where `among` is smaller than `count`.
    """
    if len(among) < count:
        raise UserError(f"{count} nearest neighbours need at least {count} examples to be among, not {len(among)}.")
    from sklearn.neighbors import NearestNeighbors

    flat = lambda values: np.asarray(values, np.float64).reshape(len(values), -1)  # noqa: E731
    return NearestNeighbors(n_neighbors=count, algorithm="brute").fit(flat(among)).kneighbors(flat(x))


def nearest_others(x: Shaped[np.ndarray, "N ..."]) -> Float[np.ndarray, "N"]:
    """Distance of every member of a set to the nearest other one; 0 for copies."""
    distances, indices = nearest(x, x, 2)
    # Among copies the first neighbour may be another one; either way the second column is an other or at distance 0.
    return np.where(indices[:, 0] == np.arange(len(x)), distances[:, 1], distances[:, 0])


def vote(labels: Int[np.ndarray, "N k"]) -> Int[np.ndarray, "N"]:
    """The most frequent label of every row; among equally frequent ones the smallest."""
    counts = np.stack([np.sum(labels == label, axis=1) for label in range(labels.max() + 1)], axis=1)
    return counts.argmax(axis=1)


def classified(
    x: Shaped[np.ndarray, "N ..."],
    among: Shaped[np.ndarray, "M ..."],
    labels: Int[np.ndarray, "M"],
    ks: tuple[int, ...],
) -> dict[int, Int[np.ndarray, "N"]]:
    """{k: the label that the k nearest of `among` vote for, each with one vote}."""
    found = labels[nearest(x, among, max(ks))[1]]
    return {k: vote(found[:, :k]) for k in ks}
