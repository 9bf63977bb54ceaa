"""State dicts of PyTorch, read without it: the numbers are right, and nothing in a file is run."""

from __future__ import annotations

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from latent.errors import UserError
from latent.extractors import torch_file
from tests.extractors import torch_files

STATE = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "bn.num_batches_tracked": np.array(7, np.int64),
    "half": np.float16([1.5, -2.0]),
    "empty": np.zeros((0, 3), np.float32),
    "view": (np.arange(20, dtype=np.float32), 3, (2, 4), (1, 4)),
}


@pytest.fixture(autouse=True)
def torch_modules(monkeypatch):
    torch_files.modules(monkeypatch)


@pytest.mark.parametrize("layout", [torch_files.stream, torch_files.archive])
def test_both_layouts_are_read(layout):
    found = torch_file.read(layout(STATE))
    assert list(found) == list(STATE)
    for name in ("conv.weight", "bn.num_batches_tracked", "half", "empty"):
        assert found[name].dtype == STATE[name].dtype
        np.testing.assert_array_equal(found[name], STATE[name])
    np.testing.assert_array_equal(found["view"], [[3, 7, 11, 15], [4, 8, 12, 16]])


@pytest.mark.parametrize("layout", [torch_files.stream, torch_files.archive])
@pytest.mark.parametrize("view", [(17, (4,), (1,)), (0, (2, 11), (10, 1)), (-1, (2,), (1,)), (5, (3,), (-1,))])
def test_views_outside_their_storage_are_refused(layout, view):
    with pytest.raises(UserError, match="x lies outside what is stored"):
        torch_file.read(layout({"x": (np.arange(20, dtype=np.float32), *view)}))


class Runs:
    def __reduce__(self):
        return os.mkdir, ("never",)


def test_nothing_in_a_file_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stream = pickle.dumps(torch_file.MAGIC, 2) + pickle.dumps(Runs(), 2)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a/data.pkl", pickle.dumps(Runs(), 2))
    for content in (pickle.dumps(Runs(), 2), stream, archive.getvalue()):
        with pytest.raises(UserError, match=r"asks for \w+\.mkdir"):
            torch_file.read(content)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"not a file of weights", pickle.dumps(3, 2)])
def test_other_files_are_told(content):
    with pytest.raises(UserError, match="not a readable PyTorch file"):
        torch_file.read(content)


def test_cut_files_are_told():
    whole = torch_files.stream({"x": np.arange(20, dtype=np.float32)})
    with pytest.raises(UserError, match="x lies outside what is stored"):
        torch_file.read(whole[:-4])
