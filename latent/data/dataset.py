"""From a data set's name to its arrays. TFDS prepares and keeps the sets; loading a prepared one needs no TFDS.

A data set is a module of this package with a `SOURCE`. It is prepared once, by TFDS, as array_record files under
the data directory; beside them lie the same examples as one array a split, with digests, which is what is loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from latent import config
from latent.errors import UserError, unknown_name

PACKAGE = "latent.data"
ARRAYS = "arrays"


class Split(NamedTuple):
    """Examples: `x` uint8 images [N, H, W, C] or float32 vectors [N, D], `label` int32 (-1 where there is none), and
    `factors` int32, the index of the value of every factor of variation; None where the set has none."""

    x: Shaped[np.ndarray, "N ..."]
    label: Int[np.ndarray, "N"]
    factors: Int[np.ndarray, "N F"] | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that are there, by name."""
        return {name: array for name, array in self._asdict().items() if array is not None}


class Source(NamedTuple):
    """What a data set's module says of it.

    read(directory) gives the splits from raw files, or from nothing where the set is `generated`. `urls` are the
    files that TFDS may fetch when no directory is given. `card`: source, licence, attribution, rule of the splits.
    `factors`: {name: number of values} of the factors of variation, where every example's are known.
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
    arrays = folder / name / origin.version / ARRAYS
    if not arrays.is_dir():
        from latent.data import prepare

        prepare.prepare(name, folder)
    return _read(name, origin, arrays)


def split_digest(split: Split) -> str:
    """SHA-256 of a split's arrays, shapes and dtypes included."""
    total = hashlib.sha256()
    for array in split.arrays().values():
        total.update(f"{array.dtype}{array.shape}".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def content_bucket(x: Shaped[np.ndarray, "N ..."], buckets: int) -> Int[np.ndarray, "N"]:
    """A bucket 0 .. buckets-1 for every example, from the hash of its bytes.

    Splits cut with it depend on nothing but the examples, and equal examples land in the same split.
    """
    rows = np.ascontiguousarray(x).reshape(len(x), -1)
    return np.array([int.from_bytes(hashlib.sha256(row.tobytes()).digest()[:8]) % buckets for row in rows])


def write(directory: Path, splits: Mapping[str, Split]) -> None:
    """Writes the arrays of a set and their digests; `directory` appears when everything is in it."""
    temporary = directory.with_name(f"{directory.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed process of this number: containers repeat them
    temporary.mkdir(parents=True)
    for name, split in splits.items():
        for part, array in split.arrays().items():
            np.save(temporary / f"{name}-{part}.npy", array)
    digests = {name: split_digest(split) for name, split in splits.items()}
    (temporary / "digests.json").write_text(json.dumps(digests, indent=1) + "\n")
    temporary.rename(directory)


def read_digests(name: str, arrays: Path) -> dict[str, str]:
    """The digests written with a set's arrays; UserError where they cannot be read."""
    with _readable(name, arrays):
        return json.loads((arrays / "digests.json").read_text())


@contextlib.contextmanager
def _readable(name: str, arrays: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, EOFError) as error:
        message = f"data.name={name!r}: {arrays} cannot be read ({error}); delete that folder to prepare the set again."
        raise UserError(" ".join(message.split())) from error


def _read(name: str, origin: Source, arrays: Path) -> Dataset:
    digests = read_digests(name, arrays)
    with _readable(name, arrays):
        parts = [part for part in Split._fields if part != "factors" or origin.factors]
        splits = {
            split: Split(**{part: np.load(arrays / f"{split}-{part}.npy") for part in parts}) for split in digests
        }
    for split, expected in digests.items():
        found = split_digest(splits[split])
        if found != expected:
            raise UserError(
                f"data.name={name!r}: the {split} arrays in {arrays} are damaged (SHA-256 {found[:12]}, expected "
                f"{expected[:12]}); delete that folder to prepare the set again."
            )
    card = {**origin.card, "version": origin.version}
    return Dataset(name, splits, origin.num_classes, card, digests, dict(origin.factors))
