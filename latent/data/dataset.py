"""From a data set's name to its arrays. TFDS prepares and keeps the sets; loading a prepared one needs no TFDS.

A data set is a module of this package with a `SOURCE`. It is prepared once, by TFDS, as array_record files under
the data directory; beside them lie the same examples as one array a split, with digests, which is what is loaded.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from latent import config
from latent.data import arrays
from latent.data.arrays import Split
from latent.errors import unknown_name

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


class Dataset(NamedTuple):
    """A loaded set: disjoint train, validation and test splits, and the SHA-256 of each one's arrays."""

    name: str
    splits: dict[str, Split]
    num_classes: int
    card: dict[str, str]
    digests: dict[str, str]
    factors: Mapping[str, int] = MappingProxyType({})


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


def load(name: str, data_dir: str | Path | None = None) -> Dataset:
    """Loads a prepared set, preparing it first where that needs no files of the user's.

    Raises UserError for an unknown name, a set that must be prepared by hand, and files that are damaged.
    """
    origin, folder = source(name), data_directory(data_dir)
    place = folder / name / origin.version / ARRAYS
    if not place.is_dir():
        from latent.data import prepare

        prepare.prepare(name, folder)
    splits, digests = arrays.read(name, place)
    card = {**origin.card, "version": origin.version}
    return Dataset(name, splits, origin.num_classes, card, digests, dict(origin.factors))
