"""Examples that stay on disk: the first axis of a .npy file, read row by row as it is indexed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from latent.errors import UserError


class Rows:
    """The examples of a .npy file, left on disk: `rows[index]` and `rows[a:b]` read just these, into a new array.

    Safe in threads. Raises UserError naming the file where it ends before its header says, now or later.
    """

    def __init__(self, path: Path):
        with open(path, "rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError(f"{path.name} is not an .npy file of version 1.0")
            self.shape, fortran, self.dtype = np.lib.format.read_array_header_1_0(file)
            self._offset = file.tell()
            if fortran or self.dtype.hasobject:
                raise ValueError(f"{path.name} does not hold its examples one after another")
        self.path, self.ndim = path, len(self.shape)
        self.mean: np.ndarray | None = None  # of the examples, once they have been read through
        self._row_bytes = self.dtype.itemsize * int(np.prod(self.shape[1:]))
        self.nbytes = self._row_bytes * len(self)
        size = path.stat().st_size
        if size != self._offset + self.nbytes:
            raise _truncated(path, size, self._offset + self.nbytes)
        self._descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Shaped[np.ndarray, "..."]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                found = np.empty((max(stop - start, 0), *self.shape[1:]), self.dtype)
                self._read(memoryview(found.reshape(-1).view(np.uint8)), start)
                return found
            index = np.arange(start, stop, step)
        index = np.asarray(index)
        if index.size and not 0 <= index.min() <= index.max() < len(self):
            raise IndexError(f"{self.path}: indices from {index.min()} to {index.max()} of {len(self)} examples")
        found = np.empty((*index.shape, *self.shape[1:]), self.dtype)
        rows = memoryview(found.reshape(-1).view(np.uint8))
        for place, row in enumerate(index.ravel().tolist()):
            self._read(rows[place * self._row_bytes : (place + 1) * self._row_bytes], row)
        return found

    def _read(self, target: memoryview, row: int) -> None:
        place = self._offset + row * self._row_bytes
        while target:
            count = os.preadv(self._descriptor, [target], place)
            if not count:
                raise _truncated(self.path, self.path.stat().st_size, self._offset + self.nbytes)
            target, place = target[count:], place + count


def _truncated(path: Path, size: int, expected: int) -> UserError:
    return UserError(f"{path} holds {size} bytes, its header says {expected}: truncated or damaged.")
