"""Preparing a set with TFDS: a builder without TensorFlow, made from a `Source`, and the arrays beside it."""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from latent.data import arrays, dataset
from latent.data.arrays import Split
from latent.data.dataset import Source
from latent.errors import UserError

NETWORK_TIMEOUT = 5.0
"""Seconds to wait for the first answer of a set's server before saying so; TFDS itself retries for minutes."""

READ_ROWS = 10_000
"""Examples held twice while the arrays are made from TFDS's files."""


def prepare(name: str, folder: Path, raw: Path | None = None) -> Path:
    """Prepares a set under `folder`, from the raw files in `raw` or (None) by generating or fetching it.

    Returns the directory of its arrays. Safe against a second process doing the same. Raises UserError where the raw
    files are missing, unreadable or not what they should be, and where nothing can be fetched.
    """
    origin = dataset.source(name)
    final = folder / name / origin.version
    place = final / dataset.ARRAYS
    prepared = (final / "dataset_info.json").is_file  # TFDS writes it last; the arrays can be made from its files anew
    if raw is None and not origin.generated and not prepared():
        if not origin.urls:
            raise UserError(f"data.name={name!r} is not prepared and cannot be fetched; {_remedy(name)}.")
        require_server(name, origin.urls, _remedy(name))
    splits = origin.read(raw) if raw is not None or (origin.generated and not prepared()) else None
    if splits is not None:
        _check(name, origin, splits)
    with locked(folder, name):
        if not place.is_dir():  # else another process has made it meanwhile
            builder = _builder(name, origin, folder, splits)
            if not prepared():
                with fetched(name, _remedy(name)):
                    builder.download_and_prepare()
            with damage_named(name, final):
                arrays.write(place, {split: _arrays(builder, split) for split in arrays.SPLITS}.items())
    if raw is not None and splits is not None:
        _require_same(name, place, raw, splits)
    return place


@contextlib.contextmanager
def fetched(name: str, remedy: str) -> Iterator[None]:
    """What goes wrong while TFDS fetches and prepares is for the user, in one line."""
    from tensorflow_datasets.core.download import download_manager, util

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints two lines about itself
            yield
    except (OSError, AssertionError, util.DownloadError, download_manager.NonMatchingChecksumError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"data.name={name!r} cannot be fetched or written ({reason}); {remedy}.") from error


def _remedy(name: str) -> str:
    return f"python -m scripts.prepare_data {name} --from=DIRECTORY reads files that you already have"


def _require_same(name: str, place: Path, raw: Path, splits: dict[str, Split]) -> None:
    """UserError where the set was prepared from other files earlier: the new ones must not be ignored silently."""
    kept = arrays.read_digests(name, place)
    if kept != {split: arrays.split_digest(found) for split, found in splits.items()}:
        raise UserError(
            f"--from={raw}: {name} is already prepared, from other data; delete {place.parent} to replace it."
        )


def _check(name: str, origin: Source, splits: dict[str, Split]) -> None:
    for split, found in splits.items():
        if found.x.shape[1:] != origin.shape or found.x.dtype != origin.dtype:
            raise UserError(
                f"--from: the {split} files hold {found.x.dtype} examples of shape {found.x.shape[1:]}, "
                f"{name} has {np.dtype(origin.dtype)} of {origin.shape}."
            )
        if not len(found.x):
            raise UserError(f"--from: these files are too few for {name}: its {split} split would be empty.")
        low, high = (-1, -1) if origin.num_classes == 0 else (0, origin.num_classes - 1)
        wrong = found.label[(found.label < low) | (found.label > high)]
        if len(wrong):
            raise UserError(f"--from: label {wrong[0]} in the {split} files; {name} has {low} to {high}.")
        _check_factors(name, origin, split, found)


def _check_factors(name: str, origin: Source, split: str, found: Split) -> None:
    factors = np.zeros((len(found.x), 0)) if found.factors is None else found.factors
    sizes = np.array(list(origin.factors.values()))
    if factors.shape != (len(found.x), len(sizes)) or ((factors < 0) | (factors >= sizes)).any():
        raise UserError(f"--from: the factors in the {split} files do not fit {name}'s {dict(origin.factors)}.")


@contextlib.contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Lets one process at a time prepare a set. Raises UserError where the data directory cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(folder / f".{name}.lock", "w")  # noqa: SIM115 - held until the set is there
    except OSError as error:
        raise UserError(f"data.dir={folder} cannot be written: {error.strerror}.") from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def require_server(name: str, urls: Sequence[str], remedy: str) -> None:
    """UserError where the first of a set's servers does not answer: TFDS itself would retry for minutes."""
    if not urls:
        return
    try:
        request = urllib.request.Request(urls[0], method="HEAD")
        urllib.request.urlopen(request, timeout=NETWORK_TIMEOUT).close()
    except urllib.error.HTTPError:
        return  # it answers, even if not to this kind of request
    except OSError as error:
        message = f"data.name={name!r} is not prepared and its server cannot be reached"
        raise UserError(f"{message}: connect to a network, or {remedy}.") from error


@contextlib.contextmanager
def damage_named(name: str, place: Path) -> Iterator[None]:
    """UserError naming the record file in `place` that cannot be read: TFDS's reader says only where in the file."""
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:
        for file in sorted(place.glob("*array_record*")):
            if reason := _damage(file):
                raise UserError(
                    f"data.name={name!r}: {file} is truncated or damaged ({reason}); delete {place} to prepare the "
                    "set again."
                ) from error
        raise


def _damage(file: Path) -> str:
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        reader = ArrayRecordReader(str(file))
        reader.read([0])  # raises for a file that cannot be opened: opening it did not
        for first in range(0, reader.num_records(), READ_ROWS):
            reader.read(first, min(first + READ_ROWS, reader.num_records()))
    except (RuntimeError, ValueError, OSError, IndexError) as error:
        return " ".join(str(error).split())[:100]
    return ""


def quiet_tfds() -> None:
    """Keeps TFDS and TensorFlow from filling the terminal and from asking Google's cloud for what is not there."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.utils import gcs_utils

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    tfds.disable_progress_bar()
    logging.getLogger("absl").setLevel(logging.ERROR)
    gcs_utils.gcs_disabled = gcs_utils._is_gcs_disabled = True  # asking takes seconds


def _builder(name: str, origin: Source, folder: Path, splits: dict[str, Split] | None) -> Any:
    """A TFDS builder of the set. Its class is not registered: ours would stand in the way of TFDS's own names."""
    import tensorflow_datasets as tfds

    quiet_tfds()

    def info(self: Any) -> Any:
        features = {
            "x": tfds.features.Tensor(shape=origin.shape, dtype=origin.dtype),
            "label": tfds.features.Scalar(dtype=np.int32),
            "index": tfds.features.Scalar(dtype=np.int64),  # TFDS shuffles by the hash of a key: keep our own order
        }
        if origin.factors:
            features["factors"] = tfds.features.Tensor(shape=(len(origin.factors),), dtype=np.int32)
        if origin.captioned:
            features["caption"] = tfds.features.Text()
        described = "\n".join(f"{key}: {value}" for key, value in origin.card.items())
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features), description=described)

    def split_generators(self: Any, manager: Any) -> dict[str, Any]:
        found = splits
        if found is None:
            files = manager.download(list(origin.urls))
            found = origin.read([Path(file) for file in files])
            _check(name, origin, found)
        return {split: self._generate_examples(examples) for split, examples in found.items()}

    def generate_examples(self: Any, split: Split) -> Iterator[tuple[int, dict[str, Any]]]:
        parts = split.parts()
        for index, row in enumerate(zip(*parts.values(), strict=True)):
            yield index, {**dict(zip(parts, row, strict=True)), "index": index}

    with tfds.core.registered.skip_registration():
        kind = type(
            name,
            (tfds.core.GeneratorBasedBuilder,),
            {
                "VERSION": tfds.core.Version(origin.version),
                "name": name,
                "__module__": __name__,
                "_info": info,
                "_split_generators": split_generators,
                "_generate_examples": generate_examples,
            },
        )
    return kind(data_dir=folder, file_format="array_record")


def _arrays(builder: Any, split: str) -> Split:
    source = builder.as_data_source(split)
    features = {part: feature for part, feature in builder.info.features.items() if part != "index"}
    kept = {part: np.empty((len(source), *feature.shape), feature.np_dtype) for part, feature in features.items()}
    for first in range(0, len(source), READ_ROWS):
        for row in source.__getitems__(range(first, min(first + READ_ROWS, len(source)))):
            for part, array in kept.items():
                array[row["index"]] = row[part]
    if "caption" in kept:
        kept["caption"] = np.array([caption.decode() for caption in kept["caption"]])
    return Split(**kept)
