"""How a prepared set lies on disk: one .npy file for every part of a split, beside their digests; whole or row by row.

A split whose examples exceed the device budget is not loaded: its `x` is `Rows`, read from the file as it is indexed,
so that neither a process nor a device ever holds the set. Everything else sees arrays either way.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from latent.data.rows import Rows
from latent.errors import UserError

SPLITS = ("train", "validation", "test")
DIGESTS, ABOUT = "digests.json", "about.json"
TENTHS = 10
CHUNK_BYTES = 16 * 2**20
"""Of examples, that a pass over a whole set holds at a time."""


class Split(NamedTuple):
    """Examples: `x` uint8 images [N, H, W, C] or float32 vectors [N, D], in memory or `Rows`; `label` int32 (-1 where
    there is none); `factors` int32, the index of the value of every factor of variation, `caption`, one sentence for
    each, and `text` int32, the numbers of its words (-1 behind the last one; text.py): None where the set has none."""

    x: Shaped[np.ndarray, "N ..."] | Rows
    label: Int[np.ndarray, "N"]
    factors: Int[np.ndarray, "N F"] | None = None
    caption: Shaped[np.ndarray, "N"] | None = None
    text: Int[np.ndarray, "N T"] | None = None

    def arrays(self) -> dict[str, np.ndarray | Rows]:
        """The numbers that are there, by name: what a batch is made of."""
        return {name: part for name, part in self.parts().items() if name != "caption"}

    def parts(self) -> dict[str, np.ndarray | Rows]:
        """Everything that is there, by name: what is kept."""
        return {name: part for name, part in self._asdict().items() if part is not None}


def chunks(x: Shaped[np.ndarray, "N ..."] | Rows) -> Iterator[Shaped[np.ndarray, "n ..."]]:
    """The examples in order, some megabytes at a time."""
    for rows in _chunk_rows(x):
        yield x[rows]


def pieces(split: Split) -> Iterator[Split]:
    """The split in order, in the same chunks, every part of it in memory."""
    for rows in _chunk_rows(split.x):
        yield Split(**{name: part[rows] for name, part in split.parts().items()})


def _chunk_rows(x: Shaped[np.ndarray, "N ..."] | Rows) -> Iterator[slice]:
    step = max(1, CHUNK_BYTES * len(x) // max(x.nbytes, 1))
    return (slice(start, start + step) for start in range(0, len(x), step))


def mean(x: Shaped[np.ndarray, "N ..."] | Rows) -> Float[np.ndarray, "..."]:
    """The mean example, summed in float64: exact for bytes, and the same from memory and from disk."""
    if isinstance(x, Rows) and x.mean is not None:
        return x.mean
    return sum(chunk.sum(axis=0, dtype=np.float64) for chunk in chunks(x)) / len(x)


def split_digest(split: Split) -> str:
    """SHA-256 of a split's arrays, shapes and dtypes included; without `text`, which follows from the captions."""
    total = hashlib.sha256()
    for array in split._replace(text=None).parts().values():
        total.update(f"{array.dtype}{array.shape}".encode())
        for chunk in chunks(array):
            total.update(np.ascontiguousarray(chunk).reshape(-1).view(np.uint8))
    return total.hexdigest()


def content_bucket(x: Shaped[np.ndarray, "N ..."], buckets: int) -> Int[np.ndarray, "N"]:
    """A bucket 0 .. buckets-1 for every example, from the hash of its bytes.

    Splits cut with it depend on nothing but the examples, and equal examples land in the same split.
    """
    rows = np.ascontiguousarray(x).reshape(len(x), -1)
    return np.array([int.from_bytes(hashlib.sha256(row.tobytes()).digest()[:8]) % buckets for row in rows], np.int64)


def held_out(train: Split, missing: Sequence[str]) -> Iterator[tuple[str, Split]]:
    """A training split, with a tenth of it cut off, by content, for each of the splits that are `missing`."""
    bucket = content_bucket(train.x, TENTHS)
    cut = {split: bucket == place for place, split in enumerate(missing)}
    for split, rows in {"train": bucket >= len(missing), **cut}.items():
        if rows.any():
            yield split, Split(**{part: array[rows] for part, array in train.parts().items()})


def complete(told: str, pieces: Iterable[tuple[str, Split]]) -> Iterator[tuple[str, Split]]:
    """The pieces of a set; UserError, which begins with `told`, where one of the three splits gets no example."""
    sizes = dict.fromkeys(SPLITS, 0)
    for name, split in pieces:
        sizes[name] += len(split.x)
        yield name, split
    for name, size in sizes.items():
        if not size:
            raise UserError(f"{told}: {sum(sizes.values())} examples are too few, its {name} split would be empty.")


def write(directory: Path, pieces: Iterable[tuple[str, Split]], about: Mapping[str, Any] | None = None) -> None:
    """Writes a set, given as (split name, examples) in any number of pieces, its digests, and what is known of it.

    `directory` appears when everything is in it. Pieces of one split are joined in the order they come; nothing of
    the set is kept in memory.
    """
    temporary = directory.with_name(f"{directory.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed process of this number: containers repeat them
    temporary.mkdir(parents=True)
    try:
        with contextlib.ExitStack() as stack:
            files: dict[tuple[str, str], _Appended] = {}
            for name, split in pieces:
                for part, array in split.parts().items():
                    if (name, part) not in files:
                        files[name, part] = stack.enter_context(_Appended(temporary / f"{name}-{part}.npy", array))
                    for chunk in chunks(array):
                        files[name, part].append(chunk)
        names = [name for name in SPLITS if (name, "x") in files]
        digests = {name: split_digest(_open(temporary, name, budget=0)) for name in names}
        (temporary / DIGESTS).write_text(json.dumps(digests, indent=1) + "\n")
        if about is not None:
            (temporary / ABOUT).write_text(json.dumps(about, indent=1) + "\n")
        temporary.rename(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _Appended:
    """A .npy file that grows along its first axis; its header is written last, over a first one of the same length."""

    def __init__(self, path: Path, like: np.ndarray | Rows):
        self._path, self._row, self._dtype, self._count = path, like.shape[1:], like.dtype, 0

    def __enter__(self) -> _Appended:
        self._file = open(self._path, "wb")
        self._header()
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.seek(0)
        self._header()
        self._file.close()

    def append(self, rows: Shaped[np.ndarray, "n ..."]) -> None:
        if rows.shape[1:] != self._row or rows.dtype != self._dtype:
            raise ValueError(f"{self._path.name}: {rows.dtype} {rows.shape[1:]} after {self._dtype} {self._row}")
        self._file.write(np.ascontiguousarray(rows).reshape(-1).view(np.uint8))
        self._count += len(rows)

    def _header(self) -> None:
        described = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(self._dtype)),
            "fortran_order": False,
            "shape": (self._count, *self._row),
        }
        np.lib.format.write_array_header_1_0(self._file, described)


def read_digests(name: str, directory: Path) -> dict[str, str]:
    """The digests written with a set's arrays; UserError where they cannot be read."""
    with _readable(name, directory):
        return json.loads((directory / DIGESTS).read_text())


def read_about(name: str, directory: Path) -> dict[str, Any]:
    """What `write` was told of the set; UserError where it cannot be read."""
    with _readable(name, directory):
        return json.loads((directory / ABOUT).read_text())


def read(name: str, directory: Path, budget: int | None = None) -> tuple[dict[str, Split], dict[str, str]]:
    """The splits that `write` left in a directory and their digests; examples of more than `budget` bytes stay on disk.

    Raises UserError naming the set and the folder where something is missing, truncated or not what was written. A
    split that stays on disk is read through for that once, and again after its file has changed.
    """
    digests = read_digests(name, directory)
    with _readable(name, directory):
        splits = {split: _open(directory, split, budget) for split in digests}
    for split, expected in digests.items():
        rows = splits[split].x if isinstance(splits[split].x, Rows) else None
        if rows is not None and _checked(rows):
            continue
        found = split_digest(splits[split])
        if found != expected:
            raise UserError(
                f"data.name={name!r}: the {split} arrays in {directory} are damaged (SHA-256 {found[:12]}, expected "
                f"{expected[:12]}); delete that folder to prepare the set again."
            )
        if rows is not None:
            _remember(rows)
    return splits, digests


@contextlib.contextmanager
def _readable(name: str, directory: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, EOFError, UserError) as error:
        message = f"data.name={name!r}: {directory} cannot be read ({error}); delete that folder to prepare the set "
        raise UserError(" ".join(message.split()) + " again.") from error


def _open(directory: Path, split: str, budget: int | None) -> Split:
    paths = {part: directory / f"{split}-{part}.npy" for part in Split._fields}
    kept = [part for part in ("label", "factors", "caption") if part == "label" or paths[part].is_file()]
    whole = budget is None or paths["x"].stat().st_size <= budget
    return Split(x=_load(paths["x"]) if whole else Rows(paths["x"]), **{part: _load(paths[part]) for part in kept})


def _load(path: Path) -> Shaped[np.ndarray, "N ..."]:
    try:
        return np.load(path)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path.name}: {error}") from error


def _checked(rows: Rows) -> bool:
    """Whether the file is as it was when it was last read through; then its mean is known from that time."""
    try:
        with np.load(rows.path.with_suffix(".checked.npz")) as remembered:
            if remembered["state"].tolist() == _state(rows):
                rows.mean = remembered["mean"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass
    return rows.mean is not None


def _remember(rows: Rows) -> None:
    rows.mean = mean(rows)
    with contextlib.suppress(OSError):  # a shared folder that this process may only read: check again next time
        np.savez(rows.path.with_suffix(".checked.npz"), state=_state(rows), mean=rows.mean)


def _state(rows: Rows) -> list[int]:
    now = rows.path.stat()
    return [now.st_size, now.st_mtime_ns]
