"""The idx files of MNIST and its relatives: four files, plain or gzipped, as numpy arrays in our three splits."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from latent.data.arrays import Split, content_bucket
from latent.errors import UserError

FILES = ("train-images", "train-labels", "t10k-images", "t10k-labels")
VALIDATION_BUCKETS = 12
"""One training image in twelve is held out for validation: about 5,000 of 60,000."""


def find(directory: Path) -> list[Path]:
    """The four files in a directory, whichever of the usual names they have."""
    found = []
    for stem in FILES:
        kind = "idx3" if stem.endswith("images") else "idx1"
        names = [f"{stem}{dot}{kind}-ubyte{end}" for dot in ("-", ".") for end in ("", ".gz")]
        paths = [path for name in names for path in sorted(directory.rglob(name))]
        if not paths:
            raise UserError(f"--from={directory}: there is no {names[0]} (or .gz) in it.")
        found.append(paths[0])
    return found


def read_file(path: Path, dimensions: int) -> UInt8[np.ndarray, "..."]:
    """One idx file of unsigned bytes; UserError where it is truncated, too long or something else."""
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        zero, kind, count = struct.unpack(">HBB", data[:4])
        shape = struct.unpack(f">{dimensions}I", data[4 : 4 + 4 * dimensions])
    except (OSError, EOFError, struct.error, gzip.zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    if (zero, kind, count) != (0, 8, dimensions):
        raise UserError(f"{path} is not an idx file of unsigned bytes with {dimensions} dimensions.")
    size, expected = len(data) - 4 - 4 * dimensions, int(np.prod(shape))
    if size != expected:
        raise UserError(f"{path} holds {size} bytes of data, its header says {expected}: truncated or damaged.")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def read(place: Path | Sequence[Path] | None) -> dict[str, Split]:
    """Train and validation from the training files, test from the t10k files.

    `place` is a directory, or the four files in the order of `FILES`.
    """
    if place is None:
        raise UserError("--from=DIRECTORY is required: this set is read from four idx files.")
    paths = find(place) if isinstance(place, Path) else list(place)
    arrays = [read_file(path, 3 if images else 1) for path, images in zip(paths, (1, 0, 1, 0), strict=True)]
    for path, images, labels in ((paths[1], *arrays[:2]), (paths[3], *arrays[2:])):
        if len(images) != len(labels):
            raise UserError(f"{path} has {len(labels)} labels for {len(images)} images.")
    x, label = arrays[0][..., None], arrays[1].astype(np.int32)
    held_out = content_bucket(x, VALIDATION_BUCKETS) == 0
    return {
        "train": Split(x[~held_out], label[~held_out]),
        "validation": Split(x[held_out], label[held_out]),
        "test": Split(arrays[2][..., None], arrays[3].astype(np.int32)),
    }
