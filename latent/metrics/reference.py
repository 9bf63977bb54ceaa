"""Features of a split kept on disk, so that the next evaluation need not extract them again. No metric itself.

A file is found by the hash of everything that its features depend on, and says so inside: another data set, another
preprocessing or other weights never meet it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from latent.checkpoint import digest
from latent.evaluation_data import EvaluationData
from latent.extractors.contract import Extractor
from latent.metrics import passport

FOLDER = "reference_features"
LIMIT = 2**30
"""Bytes of features that are worth a file."""
FORMAT = 1
"""Raised when features of the same weights and images change: what was kept before is not found again."""


def seed_of(data: EvaluationData) -> int | None:
    """The seed that the images of a split depend on: None where preprocessing draws nothing."""
    preprocessing = data.protocol.get("preprocessing", {"binarise": "not known"})
    drawn = preprocessing.get("binarise", "none") != "none" or bool(preprocessing.get("dequantise"))
    return data.seed if drawn else None


def identity(extractor: Extractor, data: EvaluationData) -> dict[str, Any] | None:
    """Everything that features of a split depend on, or None where it is not known and nothing may be kept."""
    known = data.protocol
    if not {"data", "data_sha256", "split", "preprocessing"} <= known.keys():
        return None
    found = {
        "format": FORMAT,
        "data": known["data"],
        "data_sha256": known["data_sha256"],
        "split": known["split"],
        "preprocessing": known["preprocessing"],
        "seed": seed_of(data),
        "extractor": extractor.name,
        "extractor_sha256": extractor.sha256,
        "input": extractor.card.get("input", ""),
        "backend": jax.default_backend(),  # float32 convolutions of a GPU round otherwise
    }
    return passport.valid(found)


def kept(
    folder: Path, named: Mapping[str, Any], compute: Callable[[], Float[np.ndarray, "N d"]]
) -> Float[np.ndarray, "N d"]:
    """The features of that identity from `folder`, or computed and put there.

    A damaged file is replaced. Where the folder cannot be written nothing is kept: a cache never ends an evaluation.
    """
    text = json.dumps(dict(named), sort_keys=True)
    path = folder / f"{named['data'].replace('/', '-')}-{hashlib.sha256(text.encode()).hexdigest()[:20]}.npz"
    found = _read(path, text)
    if found is not None:
        return found
    features = compute()
    if features.nbytes <= LIMIT:
        _write(path, text, features)
    return features


def _read(path: Path, text: str) -> Float[np.ndarray, "N d"] | None:
    if not path.is_file():
        return None
    try:
        with np.load(path) as stored:
            features, whole = stored["features"], str(stored["identity"]) == text
            whole = whole and digest(features) == str(stored["sha256"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return features if whole else None


def _write(path: Path, text: str, features: Float[np.ndarray, "N d"]) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(file, features=features, identity=text, sha256=digest(features))
        temporary.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
