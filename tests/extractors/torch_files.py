"""Writes state dicts in both layouts of PyTorch, without PyTorch."""

from __future__ import annotations

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np

KINDS = {"float32": "FloatStorage", "int64": "LongStorage", "float16": "HalfStorage"}


class _Storage:
    def __init__(self, key, array):
        self.key, self.array = key, np.ascontiguousarray(array)


class _Tensor:
    """A tensor over a storage, by default all of it in order."""

    def __init__(self, key, array, offset=0, shape=None, strides=None):
        self.storage = _Storage(key, array)
        shape = array.shape if shape is None else shape
        plain = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
        self.view = (offset, shape, plain if strides is None else strides)

    def __reduce__(self):
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, (self.storage, *self.view, False, OrderedDict())


def modules(monkeypatch):
    """Stands in for the modules of PyTorch that its files name."""

    def _rebuild_tensor_v2(*_):
        raise AssertionError("never called")

    found = {"torch": types.ModuleType("torch"), "torch._utils": types.ModuleType("torch._utils")}
    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    found["torch._utils"]._rebuild_tensor_v2 = _rebuild_tensor_v2
    found["torch"]._utils = found["torch._utils"]
    for kind in KINDS.values():
        setattr(found["torch"], kind, type(kind, (), {"__module__": "torch", "__qualname__": kind}))
    for name, module in found.items():
        monkeypatch.setitem(sys.modules, name, module)


def views(state):
    """{name: tensor} of arrays; a tuple (array, offset, shape, strides) is a view of the array's storage."""
    return OrderedDict(
        (name, _Tensor(str(row), *value) if isinstance(value, tuple) else _Tensor(str(row), value))
        for row, (name, value) in enumerate(state.items())
    )


def _pickled(tree, file, stream):
    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if not isinstance(value, _Storage):
                return None
            kind = getattr(sys.modules["torch"], KINDS[str(value.array.dtype)])
            told = ("storage", kind, value.key, "cpu", value.array.size)
            return (*told, None) if stream else told

    Pickler(file, protocol=2).dump(tree)


def stream(state):
    """The layout of before version 1.6: pickles one after the other, then the numbers."""
    tree, file = views(state), io.BytesIO()
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    for part in (0x1950A86A20F9469CFC6C, 1001, system):
        pickle.dump(part, file, protocol=2)
    _pickled(tree, file, stream=True)
    storages = {tensor.storage.key: tensor.storage.array for tensor in tree.values()}
    pickle.dump(list(storages), file, protocol=2)
    for array in storages.values():
        file.write(array.size.to_bytes(8, "little") + array.tobytes())
    return file.getvalue()


def archive(state, root="archive"):
    """The layout of today: a zip archive."""
    tree, main, file = views(state), io.BytesIO(), io.BytesIO()
    _pickled(tree, main, stream=False)
    with zipfile.ZipFile(file, "w") as target:
        target.writestr(f"{root}/data.pkl", main.getvalue())
        target.writestr(f"{root}/byteorder", "little")
        for tensor in tree.values():
            target.writestr(f"{root}/data/{tensor.storage.key}", tensor.storage.array.tobytes())
        target.writestr(f"{root}/version", "3")
    return file.getvalue()
