"""Walks through a latent space: one coordinate moves, all that is at right angles to it stays."""

from __future__ import annotations

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
