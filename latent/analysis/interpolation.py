"""Between two codes: the straight line and the great circle."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

WayFn = Callable[[Float[np.ndarray, "d"], Float[np.ndarray, "d"], Float[np.ndarray, "S"]], Float[np.ndarray, "S d"]]
"""(start, end, t) -> codes on the way."""


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


def path_lengths(
    decode: Callable[[Float[np.ndarray, "... d"]], np.ndarray],
    starts: Float[np.ndarray, "N d"],
    ends: Float[np.ndarray, "N d"],
    t: Float[np.ndarray, "N"],
    way: WayFn = slerp,
    step: float = 1e-3,
) -> Float[np.ndarray, "N"]:
    """|decode(way(t + step)) - decode(way(t))|^2 / step^2 at one place of every way: how fast what is decoded changes.

    Its mean is the path length of Karras et al. 2019 (arXiv 1812.04948, eq. 2), here with squared Euclidean distance of
    values in place of a perceptual one. `slerp` is for normal codes, `lerp` for any.
    """
    pairs = [way(start, end, np.array([at, at + step])) for start, end, at in zip(starts, ends, t, strict=True)]
    decoded = np.asarray(decode(np.stack(pairs)), np.float64).reshape(len(pairs), 2, -1)
    return np.sum((decoded[:, 1] - decoded[:, 0]) ** 2, axis=1) / step**2
