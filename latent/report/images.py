"""Arrays to pictures inside a page: data URIs of single images, of strips and of sheets that a script cuts up."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

SIDE = 64
"""Larger images are shrunk to this side, so that a page stays light."""


def pixels(images: Float[np.ndarray, "N H W C"], side: int = SIDE) -> UInt8[np.ndarray, "N h w C"]:
    """Images in [0, 1] as bytes, shrunk by averaging where a side is longer than `side`."""
    found = np.rint(255 * np.clip(np.asarray(images, np.float32), 0.0, 1.0)).astype(np.uint8)
    longest = max(found.shape[1:3])
    if longest <= side:
        return found
    from PIL import Image

    size = (max(1, found.shape[2] * side // longest), max(1, found.shape[1] * side // longest))
    small = [np.asarray(Image.fromarray(_plain(image)).resize(size, Image.Resampling.BOX)) for image in found]
    return np.stack(small).reshape(len(found), size[1], size[0], -1)


def uri(picture: UInt8[np.ndarray, "H W C"], photo: bool = False) -> str:
    """One picture as a data URI: PNG, or JPEG for a `photo`."""
    from PIL import Image

    file = io.BytesIO()
    if photo:
        Image.fromarray(_plain(picture)).save(file, "JPEG", quality=88)
    else:
        Image.fromarray(_plain(picture)).save(file, "PNG", compress_level=9)
    return f"data:image/{'jpeg' if photo else 'png'};base64,{base64.b64encode(file.getvalue()).decode()}"


def each(images: Float[np.ndarray, "N H W C"]) -> list[str]:
    """A data URI for every image."""
    return [uri(picture) for picture in pixels(images)]


def strip(images: Float[np.ndarray, "N H W C"]) -> str:
    """Images side by side in one picture."""
    return uri(np.concatenate(list(pixels(images)), axis=1))


def table(images: Float[np.ndarray, "R C H W channels"]) -> str:
    """Rows and columns of images, without gaps, in one picture."""
    return uri(np.concatenate([np.concatenate(list(pixels(row)), axis=1) for row in images]))


def sheet(images: Float[np.ndarray, "N H W C"], side: int = 32) -> dict[str, Any]:
    """Many images in one picture and what a script needs to find number i in it: {src, columns, width, height}."""
    tiles = pixels(images, side)
    columns = int(np.ceil(np.sqrt(len(tiles))))
    rows = -(-len(tiles) // columns)
    full = np.zeros((rows * columns, *tiles.shape[1:]), np.uint8)
    full[: len(tiles)] = tiles
    height, width, channels = tiles.shape[1:]
    picture = full.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    picture = picture.reshape(rows * height, columns * width, channels)
    photo = channels == 3 and len(tiles) > 200
    return {"src": uri(picture, photo), "columns": columns, "width": width, "height": height}


def _plain(picture: UInt8[np.ndarray, "H W C"]) -> np.ndarray:
    return picture[..., 0] if picture.shape[-1] == 1 else picture
