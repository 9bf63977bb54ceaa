"""Groups among codes: k-means clusters, and how far classes lie apart."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def k_means(codes: Float[np.ndarray, "N d"], count: int, seed: int = 0) -> Int[np.ndarray, "N"]:
    """The cluster of every code, numbered by size, the largest first; the best of 4 starts."""
    from sklearn.cluster import KMeans

    found = KMeans(min(count, len(codes)), n_init=4, random_state=seed).fit_predict(codes)
    by_size = np.argsort(-np.bincount(found), kind="stable")
    return np.argsort(by_size)[found].astype(np.int32)


def class_distances(codes: Float[np.ndarray, "N d"], labels: Int[np.ndarray, "N"]) -> Float[np.ndarray, "C C"]:
    """Distances between class centroids, in units of the root mean square distance of a code to its own centroid:
    below 1 two classes lie within each other's spread."""
    codes = np.asarray(codes, np.float64)
    found, own = np.unique(labels, return_inverse=True)
    centroids = np.stack([codes[labels == label].mean(axis=0) for label in found])
    spread = np.sqrt(np.mean(np.sum((codes - centroids[own]) ** 2, axis=1)))
    return np.linalg.norm(centroids[:, None] - centroids[None], axis=-1) / max(spread, 1e-12)
