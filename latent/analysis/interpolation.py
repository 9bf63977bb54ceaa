"""Between two codes: the straight line and the great circle."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def lerp(
    start: Float[np.ndarray, "d"], end: Float[np.ndarray, "d"], t: Float[np.ndarray, "S"]
) -> Float[np.ndarray, "S d"]:
    """start + t (end - start)."""
    return start + t[:, None] * (end - start)


def slerp(
    start: Float[np.ndarray, "d"], end: Float[np.ndarray, "d"], t: Float[np.ndarray, "S"]
) -> Float[np.ndarray, "S d"]:
    """Along the great circle, for codes whose prior lives on a shell (White 2016, arXiv 1609.04468).

    Two codes of equal length keep it on the way. Parallel codes have no plane to turn in: they are joined by `lerp`.
    """
    start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
    lengths = np.linalg.norm(start) * np.linalg.norm(end)
    cosine = np.clip(start @ end / lengths, -1.0, 1.0) if lengths > 0 else 1.0
    angle = np.arccos(cosine)
    if np.sin(angle) < 1e-6:
        return lerp(start, end, t)
    weights = np.stack([np.sin((1.0 - t) * angle), np.sin(t * angle)], axis=1) / np.sin(angle)
    return weights @ np.stack([start, end])
