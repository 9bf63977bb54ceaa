"""dsprites_rendered: 737,280 sprites, the full grid of dSprites in our own rendering."""

from __future__ import annotations

from latent.data.dsprites import Grid, source

GRID = Grid(scales=6, orientations=40, positions=32)
SOURCE = source(GRID, "Sprites of 3 shapes, 6 scales, 40 orientations, 32 x 32 positions, after dSprites")
