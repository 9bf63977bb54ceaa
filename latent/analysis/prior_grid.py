"""The whole of a two-dimensional normal prior in one picture."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def normal_grid(side: int) -> Float[np.ndarray, "side side 2"]:
    """Codes [row, column] whose coordinates are the normal quantiles (i + 1/2) / side: every cell holds the same
    mass of the prior (Kingma & Welling 2014, arXiv 1312.6114, figure 4). Right is larger z0, up is larger z1."""
    from scipy.stats import norm

    quantiles = norm.ppf((np.arange(side) + 0.5) / side)
    across, up = np.meshgrid(quantiles, quantiles[::-1])
    return np.stack([across, up], axis=-1)
