"""folder: a directory of the user's own images, `data.name=folder data.folder=DIRECTORY`.

Its subfolders are classes, with anything below them; without subfolders the set has no labels. Folders `train`,
`validation` (or `val`) and `test` at the top, with the classes inside, are the splits; what is missing of them is cut
off from `train` by the hash of the image, a tenth each. The images are decoded once, to arrays in the data directory,
and again when a file has changed.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from latent.data import arrays, images
from latent.data.arrays import SPLITS, Split
from latent.data.dataset import Dataset, Options, arrays_name
from latent.data.prepare import locked
from latent.errors import UserError

NAME = "folder"
EXTENSIONS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
SPLIT_FOLDERS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
GROUP = 256
"""Images that are decoded at a time."""


class Image(NamedTuple):
    """A file below the folder: its split ("" where the folder has none), and its class, -1 without one."""

    path: Path
    split: str
    label: int


def load(data_dir: Path, options: Options) -> Dataset:
    """The folder as a set, decoding it first where that has not been done yet.

    Files that cannot be read are named on stderr and left out. Raises UserError where the folder is missing or holds
    no images, where more than `options.broken_limit` are broken, and where they differ in size and are not resized.
    """
    root = _root(options.folder)
    files = _files(root)
    found, classes = _described(root, files)
    place = data_dir / NAME / _version(root, files) / arrays_name(options.resize)
    if not place.is_dir():
        shape = _shape(root, found, options)
        with locked(data_dir, NAME):
            if not place.is_dir():
                arrays.write(place, arrays.complete(f"data.folder={root}", _pieces(root, found, shape, options)))
    splits, digests = arrays.read(NAME, place, options.budget)
    read = sum(len(split.x) for split in splits.values())
    card = {
        "title": f"The images in {root}",
        "source": str(root),
        "licence": "the user's own",
        "attribution": "the user's own",
        "splits": f"{'by folder' if found[0].split else 'by SHA-256 of the image'}; {read} of {len(files)} files",
        "classes": ", ".join(classes) or "none",
        "version": place.parent.name,
    }
    return Dataset(NAME, splits, len(classes), card, digests)


def _root(folder: str | None) -> Path:
    if not folder:
        raise UserError("data.folder=DIRECTORY is required by data.name='folder': the images to train on.")
    root = Path(folder).expanduser().absolute()
    if not root.is_dir():
        raise UserError(f"data.folder={folder} is not a directory.")
    return root


def _files(root: Path) -> list[Path]:
    """Image files below the folder, relative to it, in a fixed order; hidden ones and macOS's copies are not images."""
    found = []
    for place, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        found += [
            Path(place, name).relative_to(root)
            for name in files
            if Path(name).suffix.lower() in EXTENSIONS and not name.startswith(".")
        ]
    if not found:
        raise UserError(f"data.folder={root} holds no images ({', '.join(sorted(EXTENSIONS))}).")
    return sorted(found)


def _version(root: Path, files: list[Path]) -> str:
    """A name for the files as they are now: path, size and time of every one."""
    total = hashlib.sha256()
    for file in files:
        now = (root / file).stat()
        total.update(f"{file.as_posix()} {now.st_size} {now.st_mtime_ns}\n".encode())
    return total.hexdigest()[:16]


def _described(root: Path, files: list[Path]) -> tuple[list[Image], list[str]]:
    """Split and class of every file, and the names of the classes."""
    tops = {file.parts[0] for file in files if len(file.parts) > 1}
    named = "train" in tops and tops <= SPLIT_FOLDERS.keys()
    depth = 1 if named else 0
    loose = [file for file in files if len(file.parts) == depth + 1]
    classes = sorted({file.parts[depth] for file in files if len(file.parts) > depth + 1})
    outside = [file for file in files if named and len(file.parts) == 1]
    if (classes and loose) or outside:
        raise UserError(f"data.folder={root}: {(outside or loose)[0]} lies beside folders of images, not in one.")
    number = {name: label for label, name in enumerate(classes)}
    return [
        Image(file, SPLIT_FOLDERS[file.parts[0]] if named else "", number[file.parts[depth]] if classes else -1)
        for file in files
    ], classes


def _shape(root: Path, found: list[Image], options: Options) -> tuple[int, int, int]:
    """Height, width and channels of the set, from the headers of its files."""
    from PIL import Image as Pillow

    sizes: dict[tuple[int, int], Path] = {}
    grey = True
    for image in found:
        try:
            with Pillow.open(root / image.path) as opened:
                sizes.setdefault(opened.size, image.path)
                grey = grey and images.is_grey(opened.mode)
        except (OSError, ValueError, SyntaxError):
            continue  # named where it is decoded
    channels = 1 if grey else 3
    if options.resize is not None:
        return options.resize, options.resize, channels
    if len(sizes) > 1:
        (one, first), (other, second) = list(sizes.items())[:2]
        raise UserError(
            f"data.folder={root}: {first} has {one[0]}x{one[1]} pixels and {second} {other[0]}x{other[1]}; "
            "data.resize=SIDE makes them alike."
        )
    width, height = next(iter(sizes), (1, 1))
    return height, width, channels


def _pieces(
    root: Path, found: list[Image], shape: tuple[int, int, int], options: Options
) -> Iterator[tuple[str, Split]]:
    there = {image.split or "train" for image in found}
    missing = [split for split in SPLITS if split not in there]
    broken: list[Path] = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(found), GROUP):
            group = found[start : start + GROUP]
            kept: list[tuple[Image, UInt8[np.ndarray, "H W C"]]] = []
            for image, pixels in zip(
                group, pool.map(lambda i: _pixels(root / i.path, shape, options), group), strict=True
            ):
                if isinstance(pixels, str):
                    _skip(root, image.path, pixels, broken, options.broken_limit)
                else:
                    kept.append((image, pixels))
            if kept:
                yield from _cut([image for image, _ in kept], np.stack([pixels for _, pixels in kept]), missing)


def _pixels(path: Path, shape: tuple[int, int, int], options: Options) -> UInt8[np.ndarray, "H W C"] | str:
    """The image, or why it cannot be read."""
    try:
        pixels = images.decoded(path, shape[-1])
    except Exception as error:  # PIL's decoders raise whatever they meet in a damaged file
        return " ".join(str(error).split()) or type(error).__name__
    pixels = pixels if options.resize is None else images.resized(pixels, options.resize)
    return pixels if pixels.shape == shape else f"turned it is {pixels.shape[1]}x{pixels.shape[0]}"


def _skip(root: Path, file: Path, reason: str, broken: list[Path], limit: int) -> None:
    broken.append(file)
    print(f"{root / file} is left out: {reason}.", file=sys.stderr)
    if len(broken) > limit:
        raise UserError(
            f"data.folder={root}: more than data.broken_limit={limit} of its files cannot be read, the last is {file}."
        )


def _cut(group: list[Image], x: UInt8[np.ndarray, "N H W C"], missing: list[str]) -> Iterator[tuple[str, Split]]:
    """The group by split. What has no folder of its own is cut from the rest by content."""
    given = np.array([image.split or "train" for image in group])
    label = np.array([image.label for image in group], np.int32)
    for split in SPLITS:
        rows = given == split
        if rows.any():
            piece = Split(x[rows], label[rows])
            yield from arrays.held_out(piece, missing) if split == "train" else [(split, piece)]
