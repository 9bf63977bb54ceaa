"""One picture: from a file to pixels, and to the size that a set has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8


def decoded(file: Path | Any, channels: int = 3) -> UInt8[np.ndarray, "H W C"]:
    """The pixels of an image file, upright, as grey (1) or RGB (3). Where it is transparent it lies over white: naive
    conversions show the colour that transparent pixels happen to have. Raises what PIL raises, an OSError mostly."""
    from PIL import Image, ImageOps

    with Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I"):  # 16 bits, which PIL would clip to 255
        image = Image.fromarray((np.asarray(image, np.uint32) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        ground.alpha_composite(image)
        image = ground
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], channels)


def is_grey(mode: str) -> bool:
    """Whether PIL's mode of an image has no colour."""
    return mode in ("1", "L", "LA", "La") or mode.startswith("I")


def resized(image: UInt8[np.ndarray, "H W C"], side: int) -> UInt8[np.ndarray, "side side C"]:
    """The central square, averaged over boxes when it shrinks and bicubic when it grows."""
    from PIL import Image

    square = min(image.shape[:2])
    top, left = (image.shape[0] - square) // 2, (image.shape[1] - square) // 2
    image = image[top : top + square, left : left + square]
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    small = picture.resize((side, side), Image.Resampling.BOX if side <= square else Image.Resampling.BICUBIC)
    return np.asarray(small).reshape(side, side, image.shape[-1])
