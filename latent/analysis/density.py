"""The aggregate posterior's density: by dimension, and in a plane."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def marginals(codes: Float[np.ndarray, "N d"], places: Float[np.ndarray, "G"]) -> Float[np.ndarray, "d G"]:
    """A Gaussian kernel density of every dimension at `places`, bandwidth by Scott's rule on that dimension."""
    codes = np.asarray(codes, np.float64)
    width = np.maximum(codes.std(axis=0), 1e-6) * len(codes) ** -0.2
    found = []
    for column, bandwidth in zip(codes.T, width, strict=True):
        distance = (places[:, None] - column[None]) / bandwidth
        found.append(np.exp(-0.5 * distance**2).mean(axis=1) / (bandwidth * np.sqrt(2 * np.pi)))
    return np.stack(found)


def plane(codes: Float[np.ndarray, "N 2"], places: Float[np.ndarray, "G"]) -> Float[np.ndarray, "G G"]:
    """The kernel density [second coordinate, first coordinate] on the grid places x places; independent bandwidths."""
    codes = np.asarray(codes, np.float64)
    width = np.maximum(codes.std(axis=0), 1e-6) * len(codes) ** (-1 / 6)
    kernels = [
        np.exp(-0.5 * ((places[:, None] - codes[None, :, axis]) / width[axis]) ** 2)
        / (width[axis] * np.sqrt(2 * np.pi))
        for axis in (0, 1)
    ]
    return kernels[1] @ kernels[0].T / len(codes)
