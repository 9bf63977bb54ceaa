"""From a data set's name to its arrays. TFDS prepares and keeps the sets; loading a prepared one needs no TFDS.

A data set is a module of this package with a `SOURCE`, a set of TFDS (catalogue.py), or the user's own images
(image_folder.py). It is prepared once, by TFDS, as array_record files under the data directory; beside them lie the
same examples as one array a split, with digests, which is what is loaded.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from latent import config
from latent.data import arrays, images, text
from latent.data.arrays import Split
from latent.data.rows import Rows
from latent.errors import UserError, unknown_name

PACKAGE = "latent.data"
ARRAYS = "arrays"


class Source(NamedTuple):
    """What a data set's module says of it.

    read(directory) gives the splits from raw files, or from nothing where the set is `generated`. `urls` are the
    files that TFDS may fetch when no directory is given. `card`: source, licence, attribution, rule of the splits.
    `factors`: {name: number of values} of the factors of variation, where every example's are known. `captioned`:
    whether every example has a caption.
    """

    version: str
    shape: tuple[int, ...]
    dtype: Any
    num_classes: int
    card: Mapping[str, str]
    read: Callable[[Path | None], dict[str, Split]]
    generated: bool = False
    urls: tuple[str, ...] = ()
    factors: Mapping[str, int] = MappingProxyType({})
    captioned: bool = False


class Options(NamedTuple):
    """What a config may say of a set besides its name.

    resize        side of the square that images are brought to, once
    budget        bytes: examples of a split that take more stay on disk; None: all are loaded
    folder        of the set `folder`: the directory of the images
    broken_limit  of the set `folder`: files that may be left out because they cannot be read
    """

    resize: int | None = None
    budget: int | None = None
    folder: str | None = None
    broken_limit: int = 0


AS_PREPARED = Options()


class Dataset(NamedTuple):
    """A loaded set: disjoint train, validation and test splits, and the SHA-256 of each one's arrays. `vocabulary`: the
    words that `Split.text` numbers, of the training captions; empty where the set has none."""

    name: str
    splits: dict[str, Split]
    num_classes: int
    card: dict[str, str]
    digests: dict[str, str]
    factors: Mapping[str, int] = MappingProxyType({})
    vocabulary: tuple[str, ...] = ()


def sources() -> dict[str, Source]:
    """Every data set of this package by name."""
    modules = {name: importlib.import_module(f"{PACKAGE}.{name}") for name in config.names(PACKAGE)}
    return {name: module.SOURCE for name, module in modules.items() if hasattr(module, "SOURCE")}


def source(name: str) -> Source:
    """The source of one data set; UserError with the nearest name where there is none."""
    known = sources()
    if name not in known:
        raise unknown_name("data.name", name, known)
    return known[name]


def data_directory(data_dir: str | Path | None) -> Path:
    """Where prepared sets lie: the argument, TFDS_DATA_DIR, or TFDS's default."""
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets"
    return Path(chosen).expanduser()


def arrays_name(resize: int | None) -> str:
    """The folder of a set's arrays, beside TFDS's files: one for every size it has been brought to."""
    return ARRAYS if resize is None else f"{ARRAYS}-{resize}"


def load(name: str, data_dir: str | Path | None = None, options: Options = AS_PREPARED) -> Dataset:
    """Loads a prepared set, preparing it first where that needs no files of the user's.

    Raises UserError for an unknown name, a set that must be prepared by hand, and files that are damaged.
    """
    if options.resize is not None and options.resize < 1:
        raise UserError(f"data.resize={options.resize} must be at least 1.")
    folder = data_directory(data_dir)
    if name == "folder":
        from latent.data import image_folder

        return image_folder.load(folder, options)
    if name not in sources():
        from latent.data import catalogue

        return catalogue.load(name, folder, options)
    return numbered(_load_own(name, source(name), folder, options))


def numbered(dataset: Dataset) -> Dataset:
    """The set with the words of its captions as numbers, every split's in rows of one length; itself without any."""
    captions = {name: split.caption for name, split in dataset.splits.items()}
    if any(found is None for found in captions.values()):
        return dataset
    vocabulary = text.vocabulary(captions["train"])
    longest = max(len(text.words(caption)) for found in captions.values() for caption in found)
    splits = {
        name: split._replace(text=text.numbers(captions[name], vocabulary, longest))
        for name, split in dataset.splits.items()
    }
    return dataset._replace(splits=splits, vocabulary=vocabulary)


def _load_own(name: str, origin: Source, folder: Path, options: Options) -> Dataset:
    place = folder / name / origin.version / ARRAYS
    if not place.is_dir():
        from latent.data import prepare

        prepare.prepare(name, folder)
    splits, digests = arrays.read(name, place, options.budget)
    if options.resize is not None and len(origin.shape) == 3:
        splits, digests = _resized(name, folder, place, splits, options)
    card = {**origin.card, "version": origin.version}
    return Dataset(name, splits, origin.num_classes, card, digests, dict(origin.factors))


def _resized(
    name: str, folder: Path, place: Path, splits: Mapping[str, Split], options: Options
) -> tuple[dict[str, Split], dict[str, str]]:
    """The splits with every image brought to `options.resize`: in memory, or where one of them lies on disk, there."""

    def smaller(x: UInt8[np.ndarray, "N H W C"]) -> UInt8[np.ndarray, "N side side C"]:
        return np.stack([images.resized(image, options.resize) for image in x])

    if not any(isinstance(split.x, Rows) for split in splits.values()):
        made = {split: found._replace(x=smaller(found.x)) for split, found in splits.items()}
        return made, {split: arrays.split_digest(found) for split, found in made.items()}
    target = place.with_name(arrays_name(options.resize))
    if not target.is_dir():
        from latent.data.prepare import locked

        with locked(folder, name):
            if not target.is_dir():
                made = ((split, piece) for split, found in splits.items() for piece in arrays.pieces(found))
                arrays.write(target, ((split, piece._replace(x=smaller(piece.x))) for split, piece in made))
    return arrays.read(name, target, options.budget)
