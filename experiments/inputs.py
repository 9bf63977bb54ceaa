"""Examples and masks that a command is given: a file, or places in a split of the run's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float

from latent.errors import UserError


def examples(run: Any, flag: str, value: str) -> tuple[Float[np.ndarray, "N ..."], Any]:
    """Prepared examples [N, ...], and a `Condition`: what the model can be told of them, label and text, where known.

    `value` is SPLIT:INDEX,INDEX (places in a split), a .npz file (key x, in the model's range) or a .png file (one
    picture of the run's size). Raises UserError for what cannot be read or is of another shape.
    """
    from latent.types import UNTOLD, Condition

    if Path(value).suffix in (".npz", ".png"):
        return _shaped(flag, value, _read(flag, Path(value), "x", run.spec.shape[-1]), run.spec.shape), UNTOLD
    split, colon, places = value.partition(":")
    if not colon or not all(place.strip().isdecimal() for place in places.split(",")):
        raise UserError(f"--{flag}={value} must be SPLIT:INDEX,INDEX, a .npz file (key x) or a .png file.")
    chosen = [int(place) for place in places.split(",")]
    size = len(run.data(split).split.x)
    if max(chosen) >= size:
        raise UserError(f"--{flag}={value}: {split} has {size} examples, the last one is {size - 1}.")
    found = run.examples(split, limit=max(chosen) + 1)
    label = found["label"][chosen]
    known = run.model.classes and (label >= 0).all()
    return found["x"][chosen], Condition(label if known else None, found["text"][chosen] if run.model.text else None)


def mask(run: Any, flag: str, value: str) -> Float[np.ndarray, "1 H W 1"]:
    """A mask of pictures [1, H, W, 1] from a .png (white stays, black is drawn anew) or a .npz file (key mask)."""
    if Path(value).suffix not in (".npz", ".png"):
        raise UserError(f"--{flag}={value} must be a .png (white stays, black is drawn anew) or .npz (key mask) file.")
    shape = (*run.spec.shape[:2], 1)
    found = _shaped(flag, value, _read(flag, Path(value), "mask", 1), shape)
    if len(found) > 1:
        raise UserError(f"--{flag}={value} holds {len(found)} masks; one serves all inputs.")
    return np.float32(found >= 0.5)


def _read(flag: str, path: Path, key: str, channels: int) -> np.ndarray:
    try:
        if path.suffix == ".npz":
            return np.asarray(np.load(path)[key], np.float32)
        from PIL import Image

        picture = Image.open(path).convert("L" if channels == 1 else "RGB")
        return np.asarray(picture, np.float32).reshape(1, picture.height, picture.width, channels) / 255.0
    except (OSError, ValueError, KeyError, IndexError, EOFError, BadZipFile) as error:
        raise UserError(f"--{flag}={path} cannot be read: {type(error).__name__}: {error}.") from error


def _shaped(flag: str, value: str, found: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    found = found[None] if found.shape == shape else found
    if found.shape[1:] != shape or not len(found):
        raise UserError(f"--{flag}={value} holds {found.shape}; this run takes examples of {shape}.")
    if not np.isfinite(found).all():
        raise UserError(f"--{flag}={value} holds numbers that are not finite.")
    return found
