"""Walks through a latent space: one coordinate moves, all that is at right angles to it stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from latent.analysis.directions import Direction


def walk(origin: Float[np.ndarray, "d"], along: Direction, values: Float[np.ndarray, "S"]) -> Float[np.ndarray, "S d"]:
    """Codes whose coordinate along a direction is centre + scale * value, otherwise the origin's.

    Values are in standard deviations of the codes, so that a walk stays where the decoder has been.
    """
    origin = np.asarray(origin, np.float64)
    rest = origin - (origin @ along.vector) * along.vector
    coordinates = along.centre + along.scale * np.asarray(values, np.float64)
    return (rest + coordinates[:, None] * along.vector).astype(np.float32)


def effects(
    decode: Callable[[Float[np.ndarray, "... d"]], np.ndarray],
    origins: Float[np.ndarray, "O d"],
    along: Sequence[Direction],
    reach: float = 2.0,
) -> Float[np.ndarray, "k"]:
    """How much every direction changes what is decoded: the root mean square difference between -reach and reach
    standard deviations, over the origins."""
    ends = np.array([-reach, reach])
    decoded = decode(np.stack([[walk(origin, one, ends) for origin in origins] for one in along]))
    difference = (decoded[:, :, 1] - decoded[:, :, 0]).reshape(len(along), -1)
    return np.sqrt(np.mean(difference.astype(np.float64) ** 2, axis=1))
