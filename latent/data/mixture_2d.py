"""mixture_2d: 25 well separated Gaussians on a 5x5 grid in the plane, the usual test of mode coverage."""

from __future__ import annotations

import numpy as np

from latent.data.mixture import Mixture, source

SPACING, SCALE = 2.0, 0.05

_GRID = SPACING * (np.stack(np.meshgrid(np.arange(5), np.arange(5)), axis=-1).reshape(-1, 2) - 2.0)
MIXTURE = Mixture(np.full(25, 1 / 25), _GRID, np.broadcast_to(SCALE**2 * np.eye(2), (25, 2, 2)))
SOURCE = source(MIXTURE, "25 Gaussians of standard deviation 0.05 on a grid of spacing 2")
