"""dsprites_rendered_small: 6,912 of the sprites' factors on a coarse grid, for tests and first tries."""

from __future__ import annotations

from latent.data.dsprites import Grid, source

GRID = Grid(scales=3, orientations=12, positions=8)
SOURCE = source(GRID, "Sprites of 3 shapes, 3 scales, 12 orientations, 8 x 8 positions, after dSprites")
