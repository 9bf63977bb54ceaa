"""Arithmetic with labels: what makes a code one class is taken away, what makes it another is added."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def class_means(codes: Float[np.ndarray, "N d"], labels: Int[np.ndarray, "N"]) -> dict[int, Float[np.ndarray, "d"]]:
    """The mean code of every label that occurs."""
    return {int(label): codes[labels == label].mean(axis=0, dtype=np.float64) for label in np.unique(labels)}


def exchanged(
    codes: Float[np.ndarray, "N d"], labels: Int[np.ndarray, "N"], means: dict[int, Float[np.ndarray, "d"]]
) -> Float[np.ndarray, "N C d"]:
    """z - mean(own class) + mean(other class) for every class in `means`, in its order (Larsen et al. 2016, arXiv
    1512.09300, section 4). A code's own class gives the code back."""
    own = np.stack([means[int(label)] for label in labels])
    others = np.stack(list(means.values()))
    return (codes - own)[:, None] + others[None]
