"""Our own renderer of sprites after dSprites (Matthey et al. 2017): a white square, ellipse or heart on black, with
known factors of variation. `dsprites_rendered` and `dsprites_rendered_small` are data sets over this file.

Calibrated to what is published of the original's pixels, not equal to them: results on it are never dSprites results.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from latent.data.arrays import Split, content_bucket
from latent.data.dataset import Source

SIDE = 64
"""Pixels of a rendered image; the sets keep 32 x 32, averaged over 2 x 2 pixels."""

SHAPES = ("square", "ellipse", "heart")
FACTORS = ("shape", "scale", "orientation", "pos_x", "pos_y")
"""In the original's order; its first factor, a colour of one value, is left out."""

REACH = 16
"""Pixels from a sprite's centre within which it lies, whatever its scale and angle."""

CENTRE_RANGE = (16.0, 48.0)
"""Pixel coordinates (edges at integers) of the centre at position 0 and 1."""

HEART_TOP = (np.array([0.0, 2.0, 7.16, 7.8, 10.28]), np.array([-2.68, -7.45, -6.2, -5.68, -3.07]))
HEART_BOTTOM = (np.array([0.0, 6.72, 8.35, 10.28]), np.array([11.03, 3.89, 1.41, -3.07]))
"""Knots (x, y) of the right half of the heart's outline at scale 1, y down, from the centre of mass."""


class Grid(NamedTuple):
    """How many values every factor has. Scale runs over [0.5, 1], orientation over [0, 2 pi] with both ends (the first
    and the last are the same angle, as in the original), the positions over [0, 1]."""

    scales: int
    orientations: int
    positions: int

    @property
    def sizes(self) -> dict[str, int]:
        """Number of values by factor, in order."""
        values = (len(SHAPES), self.scales, self.orientations, self.positions, self.positions)
        return dict(zip(FACTORS, values, strict=True))

    @property
    def subsamples(self) -> int:
        """Points per pixel and axis on which coverage is counted: a step of position is a whole number of them."""
        step = self.positions - 1
        return step * -(-16 // step)


def factors(grid: Grid) -> Int[np.ndarray, "N F"]:
    """The factors of every image of the grid, as indices of their values; the last one varies fastest."""
    return np.indices(tuple(grid.sizes.values()), np.int32).reshape(len(FACTORS), -1).T


def inside(shape: str, x: Float[np.ndarray, "H W"], y: Float[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Whether points, in pixels from the centre of a sprite of scale 1 and angle 0, y down, belong to it."""
    if shape == "square":
        return (abs(x) <= 10) & (abs(y) <= 10)
    if shape == "ellipse":
        return (x / 12.75) ** 2 + (y / 7.25) ** 2 <= 1
    x = abs(x)
    return (x <= HEART_TOP[0][-1]) & (y >= np.interp(x, *HEART_TOP)) & (y <= np.interp(x, *HEART_BOTTOM))


LIT = {"square": 0.9, "ellipse": 0.5, "heart": 0.5}
"""A pixel is lit where the sprite covers more than this share of it: fitted, so that squares at 45 degrees and the
smallest ellipses and hearts have the original's numbers of lit pixels."""


def stamps(grid: Grid, shape: str, scale: float, angle: float) -> UInt8[np.ndarray, "phase window phase window"]:
    """One sprite at every phase of its centre within a pixel (y, x): 0 or 1 in a window of 2 REACH - 1 pixels whose
    middle pixel holds the centre."""
    points, window = grid.subsamples, 2 * REACH - 1
    place = ((np.arange(2 * REACH * points) + 0.5) / points - REACH).astype(np.float32) / np.float32(scale)
    x, y = place[None, :], place[:, None]
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    covered = inside(shape, cosine * x + sine * y, cosine * y - sine * x)
    # The phases of pixel columns are all the shifts of a window of `points` over the points: differences of sums.
    step = points // (grid.positions - 1)
    for axis in (0, 1):
        total = np.cumsum(covered, axis=axis, dtype=np.int32)
        total = np.concatenate([np.zeros_like(np.take(total, [0], axis)), total], axis=axis)
        shifts = np.arange(grid.positions - 1)[:, None] * step
        starts = (np.arange(1, window + 1) * points - shifts).ravel()
        covered = np.take(total, starts + points, axis) - np.take(total, starts, axis)
    lit = covered > LIT[shape] * points**2
    phases = grid.positions - 1
    return lit.reshape(phases, window, phases, window).astype(np.uint8)


def render(grid: Grid, shape: int, scale: int, orientation: int) -> UInt8[np.ndarray, "positions positions 64 64"]:
    """A sprite at every position (x, then y, as in the order of the factors): images of 0 and 1."""
    size = np.linspace(0.5, 1.0, grid.scales)[scale]
    angle = np.linspace(0.0, 2 * np.pi, grid.orientations)[orientation] % (2 * np.pi)
    stamp = stamps(grid, SHAPES[shape], float(size), float(angle))
    first, last = CENTRE_RANGE
    # Whole pixels and phase of every centre, in exact arithmetic; the range is a whole number of pixels.
    pixel, phase = np.divmod(np.arange(grid.positions) * int(last - first), grid.positions - 1)
    corner = pixel + int(first) - REACH + 1
    window = 2 * REACH - 1
    images = np.zeros((grid.positions, grid.positions, SIDE, SIDE), np.uint8)
    for i, (left, phase_x) in enumerate(zip(corner, phase, strict=True)):
        for j, (top, phase_y) in enumerate(zip(corner, phase, strict=True)):
            images[i, j, top : top + window, left : left + window] = stamp[phase_y, :, phase_x]
    return images


def halved(images: UInt8[np.ndarray, "... H W"]) -> UInt8[np.ndarray, "... h w"]:
    """Images of 0 and 1, averaged over 2 x 2 pixels: 0, 64, 128, 191 or 255."""
    count = images[..., ::2, :] + images[..., 1::2, :]
    count = count[..., ::2] + count[..., 1::2]
    return np.array([0, 64, 128, 191, 255], np.uint8)[count]


def read(grid: Grid) -> dict[str, Split]:
    """The three splits of a grid, in an order that carries nothing of the factors: the first N examples of a split are
    a random sample of it. Equal images, of the first and the last orientation, are in the same split."""
    every = factors(grid)
    x = np.empty((len(every), SIDE // 2, SIDE // 2, 1), np.uint8)
    per_sprite = grid.positions**2
    for row in range(0, len(every), per_sprite):
        images = halved(render(grid, *every[row, :3].tolist()))
        x[row : row + per_sprite] = images.reshape(per_sprite, SIDE // 2, SIDE // 2, 1)
    bucket = content_bucket(x, 10)
    generator = np.random.default_rng(0)
    splits = {}
    for split, chosen in (("train", bucket >= 2), ("validation", bucket == 1), ("test", bucket == 0)):
        rows = generator.permutation(np.flatnonzero(chosen))
        splits[split] = Split(x[rows], every[rows, 0], every[rows])
    return splits


def source(grid: Grid, title: str) -> Source:
    """The data set of a grid; the label is the shape."""

    def generate(directory: Path | None) -> dict[str, Split]:
        return read(grid)

    return Source(
        version="1.0.0",
        shape=(SIDE // 2, SIDE // 2, 1),
        dtype=np.uint8,
        num_classes=len(SHAPES),
        factors=grid.sizes,
        card={
            "title": title,
            "source": "rendered by latent/data/dsprites.py at 64x64, kept at 32x32 by area averaging",
            "licence": "none needed",
            "attribution": "after dSprites, L. Matthey, I. Higgins, D. Hassabis and A. Lerchner, 2017",
            "splits": "by SHA-256 of the image, 80/10/10, shuffled; the label is the shape. Not equal to dSprites",
        },
        read=generate,
        generated=True,
    )
