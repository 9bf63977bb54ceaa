"""Sets above the device budget: the same batches and numbers as from memory, none of it held."""

from __future__ import annotations

import concurrent.futures
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import jax
import numpy as np
import pytest

import latent
from latent import build, config
from latent.checkpoint import digest
from latent.data import arrays, dataset, feed, preprocess
from latent.data.arrays import Split
from latent.data.dataset import Options
from latent.data.rows import Rows
from latent.errors import UserError
from latent.train import train

ROOT = Path(__file__).parents[2]


def examples(size=50, shape=(4, 4, 3), seed=0):
    generator = np.random.default_rng(seed)
    x = generator.integers(0, 256, (size, *shape)).astype(np.uint8)
    factors = generator.integers(0, 3, (size, 2)).astype(np.int32)
    return Split(x, np.arange(size, dtype=np.int32), factors, np.array([f"number {row}" for row in range(size)]))


def every_split(**options):
    return {name: examples(seed=seed, **options) for seed, name in enumerate(arrays.SPLITS)}


@pytest.fixture
def place(tmp_path):
    arrays.write(tmp_path / "arrays", every_split().items())
    return tmp_path / "arrays"


def rows_of(x, folder):
    np.save(folder / "x.npy", x)
    return Rows(folder / "x.npy")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_rows_are_read_as_from_the_array(tmp_path, dtype):
    x = examples().x.astype(dtype)
    rows = rows_of(x, tmp_path)
    assert (len(rows), rows.shape, rows.ndim, rows.dtype, rows.nbytes) == (50, x.shape, 4, x.dtype, x.nbytes)
    slices = (slice(3, 9), slice(None), slice(40, 90), slice(0, 9, 4), slice(5, 2))
    for index in (*slices, 7, [1, 49, 1], np.eye(3, dtype=int)):
        np.testing.assert_array_equal(rows[index], x[index], strict=True)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        orders = [np.random.default_rng(seed).permutation(50) for seed in range(40)]
        for order, found in zip(orders, pool.map(rows.__getitem__, orders), strict=True):
            np.testing.assert_array_equal(found, x[order])
    for wrong in ([50], [-1], 50):
        with pytest.raises(IndexError, match="of 50 examples"):
            rows[wrong]


def test_rows_are_read_into_the_batch_itself(tmp_path):
    """No copy on the way: what is allocated is the batch."""
    rows = rows_of(np.zeros((64, 64, 64, 3), np.uint8), tmp_path)
    index = np.arange(64).reshape(4, 16)
    tracemalloc.start()
    found = rows[index]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.nbytes <= peak < 1.05 * found.nbytes
    assert found.base is None and found.flags.owndata and found.flags.c_contiguous


def test_truncated_files_are_named(tmp_path, place):
    path = place / "train-x.npy"
    rows, data = Rows(path), path.read_bytes()
    path.write_bytes(data[:1000])
    with pytest.raises(UserError, match=rf"{path} holds 1000 bytes, its header says {len(data)}: truncated"):
        rows[[49]]
    with pytest.raises(UserError, match=r"data.name='some'.*train-x.npy holds 1000 bytes.*delete that folder"):
        arrays.read("some", place, budget=100)
    with pytest.raises(UserError, match=r"data.name='some'.*train-x.npy.*delete that folder"):
        arrays.read("some", place)
    path.write_bytes(b"something else")
    with pytest.raises(UserError, match=r"data.name='some'.*delete that folder"):
        arrays.read("some", place, budget=5)


def test_a_streamed_file_is_checked_once_for_as_long_as_it_stays(place, monkeypatch):
    arrays.read("some", place, budget=100)
    read = []
    monkeypatch.setattr(arrays, "split_digest", lambda split: read.append(split) or "wrong")
    arrays.read("some", place, budget=100)
    assert not read
    monkeypatch.undo()
    path = place / "test-x.npy"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(1, 1))
    with pytest.raises(UserError, match=r"the test arrays in .* are damaged"):
        arrays.read("some", place, budget=100)


def test_pieces_make_the_same_set(tmp_path, place):
    whole = every_split()
    pieces = [
        (name, Split(**{part: array[start : start + 7] for part, array in split.parts().items()}))
        for start in range(0, 50, 7)
        for name, split in whole.items()
    ]
    arrays.write(tmp_path / "pieces", pieces)
    for budget in (None, 100):
        found, digests = arrays.read("some", tmp_path / "pieces", budget)
        assert digests == arrays.read_digests("some", place) == {n: arrays.split_digest(s) for n, s in whole.items()}
        assert list(found) == list(arrays.SPLITS) and isinstance(found["train"].x, Rows) == (budget == 100)
        for name, split in found.items():
            for part, array in split.parts().items():
                np.testing.assert_array_equal(array[:], whole[name].parts()[part], strict=True)


def test_a_set_that_could_not_be_written_leaves_nothing(tmp_path):
    def pieces():
        yield "train", examples()
        raise RuntimeError("the disk of the source broke")

    with pytest.raises(RuntimeError):
        arrays.write(tmp_path / "arrays", pieces())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_mean_is_the_same_from_disk(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 500)
    x = examples().x.astype(dtype)
    found = arrays.mean(rows_of(x, tmp_path))
    np.testing.assert_array_equal(found, arrays.mean(x), strict=True)
    np.testing.assert_array_equal(found, x.mean(axis=0, dtype=np.float64), strict=True)


@pytest.mark.parametrize("count", [1, 3])
def test_streamed_batches_are_the_resident_ones(place, count):
    text = np.arange(100, dtype=np.int32).reshape(50, 2)
    split, whole = (arrays.read("some", place, budget)[0]["train"]._replace(text=text) for budget in (100, None))
    resident = feed.build(whole, 3, 8, 2400, workers=2)
    streamed = feed.build(split, 3, 8, 2399, workers=3)
    assert not jax.tree.leaves(streamed.resident) and jax.tree.leaves(resident.resident)
    assert resident.step_bytes == 0 and streamed.step_bytes == 8 * 48
    in_order = range(0, 20 * count, count)  # over several epochs, batches that straddle them included
    for first in (*in_order, 5, 6, 6, 100):  # then jumps: back, again, ahead
        expected, found = resident.inputs(first, count), streamed.inputs(first, count)
        for row in range(count):
            one = resident.fetch(resident.resident, {name: value[row] for name, value in expected.items()})
            other = streamed.fetch(streamed.resident, {name: value[row] for name, value in found.items()})
            assert set(one) == set(other) == {"x", "label", "factors", "text", "index", "position"}
            for name in one:
                np.testing.assert_array_equal(other[name], one[name], strict=True)


def test_a_file_that_is_cut_while_it_is_read_stops_the_run(place):
    streamed = feed.streamed_feed(arrays.read("some", place, budget=100)[0]["train"], 0, 8)
    streamed.inputs(0, 1)
    os.truncate(place / "train-x.npy", 200)
    with pytest.raises(UserError, match=r"train-x\.npy holds 200 bytes"):
        for step in range(1, 20):
            streamed.inputs(step, 1)


def test_workers_are_checked():
    with pytest.raises(UserError, match=r"data.workers=0 must be at least 1"):
        feed.build(examples(), 0, 8, 10, workers=0)


def test_resizing_on_disk_is_resizing_in_memory(tmp_path):
    whole = dataset.load("digits", tmp_path, Options(resize=4))
    for budget in (1000, 2**30):  # written once, then read whichever way it fits
        streamed = dataset.load("digits", tmp_path, Options(resize=4, budget=budget))
        assert streamed.digests == whole.digests
    streamed = dataset.load("digits", tmp_path, Options(resize=4, budget=1000))
    assert isinstance(streamed.splits["train"].x, Rows) and streamed.splits["train"].x.shape[1:] == (4, 4, 1)
    np.testing.assert_array_equal(streamed.splits["test"].x[:], whole.splits["test"].x)


def test_preprocessing_is_told_the_same(tmp_path):
    section = config.Section(config.load("configs/vae.py:tiny").data.to_dict())
    _, resident, _ = preprocess.build(section, dataset.load("digits", tmp_path))
    streamed_set = dataset.load("digits", tmp_path, Options(budget=1000))
    _, streamed, _ = preprocess.build(section, streamed_set)
    np.testing.assert_array_equal(streamed.mean, resident.mean, strict=True)
    assert streamed._replace(mean=None) == resident._replace(mean=None)
    seeded = config.Section(config.load("configs/vae.py:tiny", {"data.binarise": "seeded"}).data.to_dict())
    with pytest.raises(UserError, match=r"data.binarise='seeded' draws the validation split as a whole"):
        preprocess.build(seeded, streamed_set)


@pytest.mark.slow
def test_a_streamed_run_is_the_resident_run(tmp_path):
    """Bit for bit, with a stop in the middle at which the budget changes; evaluation included."""
    resident = config.load("configs/vae.py:tiny").to_dict()
    streamed = config.load("configs/vae.py:tiny", {"data.device_budget": 1000}).to_dict()
    streamed["optimizer"]["autoencoder"]["schedule"]["horizon"] = 4
    resident["optimizer"]["autoencoder"]["schedule"]["horizon"] = 4
    assert train(resident, tmp_path / "resident") == 0
    assert train(streamed, tmp_path / "streamed") == 0
    streamed["train"]["steps"] = 2
    assert train(streamed, tmp_path / "parts") == 0
    assert train(resident, tmp_path / "parts") == 0
    runs = {name: latent.load(tmp_path / name) for name in ("resident", "streamed", "parts")}
    assert isinstance(runs["streamed"].experiment.dataset.splits["train"].x, Rows)
    assert len({digest(run.state) for run in runs.values()}) == 1
    one, other = (runs[name].evaluate(split="test") for name in ("resident", "streamed"))
    assert one == other and len(one) > 2


def test_what_is_sent_limits_a_dispatch():
    experiment = build.build(build.resolved(config.load("configs/vae.py:digits").to_dict()))
    free = build.steps_per_dispatch(experiment, 0, True, 1)
    limited = build.steps_per_dispatch(experiment, 0, True, 1, step_bytes=build.DISPATCH_BYTES // 7)
    assert free == 100 and limited == 5  # the largest divisor of 500 steps that is below 7


def large_set(folder, size):
    """Zeros as large as they may be without taking room on disk; labels by number."""
    place = folder / "mnist" / dataset.source("mnist").version / dataset.ARRAYS
    arrays.write(place, every_split(size=40, shape=(28, 28, 1)).items())
    for part in ("factors", "caption"):
        for path in place.glob(f"*-{part}.npy"):
            path.unlink()
    np.save(place / "train-label.npy", (np.arange(size) % 10).astype(np.int32))
    with open(place / "train-x.npy", "wb") as file:
        described = {"descr": "|u1", "fortran_order": False, "shape": (size, 28, 28, 1)}
        np.lib.format.write_array_header_1_0(file, described)
        file.truncate(file.tell() + size * 784)
    digests = {name: arrays.split_digest(arrays._open(place, name, budget=0)) for name in arrays.SPLITS}
    (place / arrays.DIGESTS).write_text(json.dumps(digests))
    return size * 784


@pytest.mark.slow
def test_memory_stays_below_the_set(tmp_path):
    """A set of four times the budget, a process that takes less than the set for everything it does."""
    size = large_set(tmp_path, 2_500_000)
    words = [f"--config.data.dir={tmp_path}", f"--config.data.device_budget={size // 4}"]
    words += ["--config.data.name=mnist", "--config.train.batch_size=512", "--config.train.steps=400"]
    words += ["--config.eval.every=0", "--config.checkpoint.every=0", "--config.eval.metrics=()"]
    words += ["--config.checkpoint.best_metric=", "--config.optimizer.autoencoder.schedule.warmup_steps=1"]
    command = [sys.executable, "-m", "experiments.train", "--config=configs/vae.py:tiny", f"--workdir={tmp_path}/run"]
    program = (
        "import sys, resource, subprocess; code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL); "
        "print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *command, *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    code, peak = map(int, done.stdout.split())
    assert code == 0, done.stderr
    assert peak < size, f"{peak / 2**20:.0f} MiB for a set of {size / 2**20:.0f} MiB"
