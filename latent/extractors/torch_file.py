"""Reads the tensors of a PyTorch state dict into NumPy, without PyTorch and without running anything in the file.

Both layouts of `torch.save` are read: the archive of today and the stream of pickles of before version 1.6. The names
that a file may ask for are listed here; any other one is refused.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from latent.errors import UserError

MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class _Storage(NamedTuple):
    """Numbers in a row, kept elsewhere in the file under `key`."""

    key: str
    dtype: Any
    count: int


class _Tensor(NamedTuple):
    """A view of a storage, in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage: Any, offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
    return _Tensor(storage, int(offset), tuple(shape), tuple(strides))


KNOWN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    **{("torch", name): np.dtype(dtype) for name, dtype in STORAGES.items()},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in KNOWN:
            raise UserError(f"the file asks for {module}.{name}: only the tensors of a state dict are read.")
        return KNOWN[module, name]

    def persistent_load(self, told: Any) -> _Storage:
        kind, dtype, key, _, count, *_ = told
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise UserError(f"the file refers to a {kind} of {dtype}: only the tensors of a state dict are read.")
        return _Storage(str(key), dtype, int(count))


def read(content: bytes) -> dict[str, Shaped[np.ndarray, "..."]]:
    """{name: array} of a state dict; what is no tensor is left out. UserError for any other file, or a damaged one."""
    try:
        tree, storages = _archive(content) if zipfile.is_zipfile(io.BytesIO(content)) else _stream(content)
    except (pickle.UnpicklingError, EOFError, KeyError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as e:
        raise UserError(f"not a readable PyTorch file: {type(e).__name__}: {e}.") from e
    if not isinstance(tree, Mapping):
        raise UserError(f"the file holds a {type(tree).__name__}, not a state dict.")
    return {str(name): _array(name, tensor, storages) for name, tensor in tree.items() if isinstance(tensor, _Tensor)}


def _archive(content: bytes) -> tuple[Any, dict[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (main,) = (name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl")
        root = main.removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("its numbers are big-endian")
        tree = _Unpickler(io.BytesIO(archive.read(main))).load()
        inside = [name for name in archive.namelist() if name.startswith(f"{root}data/")]
        return tree, {name.removeprefix(f"{root}data/"): archive.read(name) for name in inside}


def _stream(content: bytes) -> tuple[Any, dict[str, bytes]]:
    file = io.BytesIO(content)
    if _Unpickler(file).load() != MAGIC:
        raise ValueError("it does not start as one")
    _Unpickler(file).load()  # the version of the layout
    if not _Unpickler(file).load()["little_endian"]:
        raise ValueError("its numbers are big-endian")
    unpickler = _Recording(file)
    tree = unpickler.load()
    storages = {}
    for key in _Unpickler(file).load():
        count = int.from_bytes(file.read(8), "little")
        storages[key] = file.read(count * unpickler.sizes[key])
    return tree, storages


class _Recording(_Unpickler):
    """Remembers the bytes of one number of every storage, which the numbers themselves do not say."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        self.sizes: dict[str, int] = {}

    def persistent_load(self, told: Any) -> _Storage:
        storage = super().persistent_load(told)
        self.sizes[storage.key] = storage.dtype.itemsize
        return storage


def _array(name: str, tensor: _Tensor, storages: Mapping[str, bytes]) -> Shaped[np.ndarray, "..."]:
    storage, stored = tensor.storage, storages.get(tensor.storage.key, b"")
    numbers = np.frombuffer(stored, storage.dtype) if len(stored) % storage.dtype.itemsize == 0 else stored
    steps = [(size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True)]
    last = tensor.offset + sum(steps)
    empty = math.prod(tensor.shape) == 0
    if len(numbers) != storage.count or (not empty and not 0 <= tensor.offset <= last < len(numbers)) or min(
        tensor.strides, default=0
    ) < 0:  # fmt: skip
        raise UserError(f"not a readable PyTorch file: {name} lies outside what is stored.")
    if empty:
        return np.empty(tensor.shape, storage.dtype)
    strides = [stride * storage.dtype.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides).copy()
