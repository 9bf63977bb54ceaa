"""Any image set of TFDS by its name there: `cifar10`, `celeb_a`, `imagenet_resized/64x64`, ...

TFDS's own builder prepares it, once, with TensorFlow (an extra). From its record files the images are written as
arrays, and loading these needs neither. Where one of our sets has the same name, `tfds:NAME` is TFDS's.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from latent.data import arrays, dataset, images
from latent.data.arrays import SPLITS, Split
from latent.data.dataset import Dataset, Options, arrays_name
from latent.data.prepare import damage_named, fetched, locked, quiet_tfds, require_server
from latent.errors import UserError

PREFIX = "tfds:"
INSTALL = 'pip install -e ".[tfds]"'
NAMES = {"validation": ("validation", "val", "valid", "dev"), "test": ("test",)}
"""What sets call their splits; where only one of the two is there it is the test split, and validation is cut."""

READ_ROWS = 256
"""Examples decoded at a time."""


def load(name: str, folder: Path, options: Options) -> Dataset:
    """The set, preparing it first where TFDS can fetch it.

    Raises UserError for a name that TFDS does not know, for what is not a set of images, and where TensorFlow, files
    or a network are missing.
    """
    known = [place / arrays_name(options.resize) for place in _versions(name, folder)]
    place = known[-1] if known and known[-1].is_dir() else prepare(name, folder, options.resize)
    splits, digests = arrays.read(name, place, options.budget)
    about = arrays.read_about(name, place)
    return Dataset(name, splits, about["num_classes"], about["card"], digests)


def prepare(name: str, folder: Path, resize: int | None = None, raw: Path | None = None) -> Path:
    """Prepares a set with TFDS, from the files in `raw` that its builder expects or (None) by fetching them, and
    writes its arrays. Returns their directory."""
    import tensorflow_datasets as tfds

    quiet_tfds()
    found = _versions(name, folder)
    builder = _kept(name, found[-1]) if found else _builder(name, folder)
    image, label = _features(name, builder, resize)
    place = Path(builder.data_path) / arrays_name(resize)
    if not found:
        _require_means(name, builder, raw)
    with locked(folder, name.replace("/", "-")):
        if not (place.parent / "dataset_info.json").is_file():
            config = tfds.download.DownloadConfig(manual_dir=raw)
            with fetched(name, _remedy(name)):
                builder.download_and_prepare(download_config=config)
        if not place.is_dir():
            builder = builder if found else _builder(name, folder)  # whose splits are known now
            _require_records(name, builder)
            with damage_named(name, place.parent):
                pieces = arrays.complete(f"data.name={name!r}", _pieces(builder, image, label, resize))
                arrays.write(place, pieces, _about(name, builder, label))
    return place


def _versions(name: str, folder: Path) -> list[Path]:
    """Directories of what TFDS has prepared under this name, oldest version first."""
    plain, _, version = name.removeprefix(PREFIX).partition(":")
    ours = dataset.sources()
    own = ours[plain].version if plain in ours else ""
    found = [path.parent for path in (folder / plain).glob(f"{version or '*'}/dataset_info.json")]
    return sorted(
        (path for path in found if path.name != own and path.name.replace(".", "").isdigit()),
        key=lambda path: [int(number) for number in path.name.split(".")],
    )


def _kept(name: str, place: Path) -> Any:
    """A builder of what is there, whatever version of TFDS is installed."""
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(place)
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:150]
        raise UserError(
            f"data.name={name!r}: {place} cannot be read ({reason}); delete it to prepare the set again."
        ) from error


def _builder(name: str, folder: Path) -> Any:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import registered

    plain = name.removeprefix(PREFIX)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return tfds.builder(plain, data_dir=folder, file_format="array_record")
    except registered.DatasetNotFoundError as error:
        raise _unknown(name) from error
    except ModuleNotFoundError as error:
        raise _needs_tensorflow(name) from error
    except (ValueError, AssertionError) as error:
        base = plain.partition("/")[0].partition(":")[0]
        kind = tfds.builder_cls(base)
        allowed = [f"{base}/{config}" for config in kind.builder_configs] or [f"{base}:{kind.VERSION}"]
        near = difflib.get_close_matches(plain, allowed, n=3, cutoff=0.0)
        raise UserError(f"data.name={name!r} is not known. Nearest of {base}: {', '.join(near)}.") from error


def _unknown(name: str) -> UserError:
    import tensorflow_datasets as tfds

    theirs = tfds.list_builders(with_community_datasets=False)
    ours = dataset.sources()
    base = name.removeprefix(PREFIX).partition("/")[0]
    near = difflib.get_close_matches(base, sorted({*ours, "folder", *theirs}), n=3, cutoff=0.5)
    hint = f" Did you mean {', '.join(map(repr, near))}?" if near else ""
    return UserError(
        f"data.name={name!r} is not known.{hint} Allowed: {', '.join(sorted(ours))}, folder, "
        f"or one of TFDS's {len(theirs)} names."
    )


def _features(name: str, builder: Any, resize: int | None) -> tuple[str, str | None]:
    """The names of the image and of the label (None: there is none) among a set's features."""
    import tensorflow_datasets as tfds

    told = builder.info.features
    features = dict(told.items()) if isinstance(told, tfds.features.FeaturesDict) else {}
    pictures = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    if not pictures:
        raise UserError(f"data.name={name!r} is not a set of images: its features are {', '.join(features) or 'none'}.")
    image = "image" if "image" in pictures else pictures[0]
    height, width, channels = features[image].shape
    if np.dtype(features[image].np_dtype) != np.uint8 or channels not in (1, 3):
        raise UserError(f"data.name={name!r}: its images are {features[image].np_dtype.__name__} with {channels} "
                        "channels; bytes, grey or RGB, are what can be loaded.")  # fmt: skip
    if resize is None and (height is None or width is None):
        raise UserError(f"data.name={name!r} has images of many sizes: data.resize=SIDE makes them alike.")
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    return image, "label" if "label" in labels else next(iter(labels), None)


def _require_means(name: str, builder: Any, raw: Path | None) -> None:
    """UserError where what preparing takes is not there: better now than after TFDS's minutes of retries."""
    if importlib.util.find_spec("tensorflow") is None:
        raise _needs_tensorflow(name)
    if raw is None and builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        told = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        raise UserError(f"data.name={name!r} must be fetched by hand ({told[:200]}); {_remedy(name)}.")
    if raw is None:
        require_server(name, list(type(builder).url_infos), _remedy(name))


def _require_records(name: str, builder: Any) -> None:
    kind = builder.info.file_format.value
    if kind != "array_record":
        raise UserError(
            f"data.name={name!r}: {builder.data_path} was prepared as {kind}, which only TensorFlow reads in order; "
            "prepare it in another data.dir, or delete it there."
        )


def _needs_tensorflow(name: str) -> UserError:
    return UserError(f"data.name={name!r} is not prepared, and TFDS needs TensorFlow for that, once: {INSTALL}")


def _remedy(name: str) -> str:
    return f"python -m scripts.prepare_data {name} --from=DIRECTORY reads the files that TFDS would fetch"


def _sources(builder: Any) -> tuple[dict[str, str], list[str]]:
    """TFDS's split for each of ours, and those that are to be cut off the training split."""
    found = {name for name, info in builder.info.splits.items() if info.num_examples}  # known once it is prepared
    if "train" not in found:
        raise UserError(f"data.name={builder.info.full_name!r} has no split train, only {', '.join(sorted(found))}.")
    chosen = {"train": "train"}
    for ours, names in NAMES.items():
        known = [name for name in names if name in found]
        chosen |= {ours: known[0]} if known else {}
    if "test" not in chosen and "validation" in chosen:
        chosen["test"] = chosen.pop("validation")
    return chosen, [split for split in SPLITS if split not in chosen]


def _pieces(builder: Any, image: str, label: str | None, resize: int | None) -> Iterator[tuple[str, Split]]:
    chosen, missing = _sources(builder)
    for ours, theirs in chosen.items():
        source = builder.as_data_source(theirs)
        for first in range(0, len(source), READ_ROWS):
            rows = [source[row] for row in range(first, min(first + READ_ROWS, len(source)))]
            pictures = [row[image] for row in rows]
            x = np.stack(pictures if resize is None else [images.resized(picture, resize) for picture in pictures])
            piece = Split(x, np.array([-1 if label is None else row[label] for row in rows], np.int32))
            yield from arrays.held_out(piece, missing) if ours == "train" else [(ours, piece)]


def _about(name: str, builder: Any, label: str | None) -> dict[str, Any]:
    info = builder.info
    chosen, missing = _sources(builder)
    told = [f"{ours} is TFDS's {theirs}" for ours, theirs in chosen.items()]
    told += [f"{split} is a tenth of train, by SHA-256 of the image" for split in missing]
    card = {
        "title": info.full_name,
        "source": f"TFDS, {info.homepage or 'no address given'}",
        "licence": (info.redistribution_info.license if info.redistribution_info else "") or "not stated by TFDS",
        "attribution": " ".join(info.citation.split())[:300] or "not stated by TFDS",
        "splits": "; ".join(told),
        "version": str(info.version),
    }
    return {"num_classes": 0 if label is None else info.features[label].num_classes, "card": card}
