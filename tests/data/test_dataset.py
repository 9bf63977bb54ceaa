"""Preparing, loading and refusing data sets; every set of the package keeps the protocol."""

from __future__ import annotations

import functools
import gzip
import http.server
import io
import os
import shutil
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from latent.data import arrays, dataset, idx, mnist, prepare
from latent.errors import UserError

ROOT = Path(__file__).parents[2]
LARGE = {"dsprites_rendered", "mixture_2d", "mixture_8d"}
GENERATED = [
    pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name
    for name, source in dataset.sources().items()
    if source.generated
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Four small idx files, two of them gzipped, one with a dot in its name."""
    place = tmp_path_factory.mktemp("raw")
    write_idx(place)
    return place


def write_idx(place, train=240, test=30):
    generator = np.random.default_rng(0)
    for stem, count in (("train", train), ("t10k", test)):
        images = generator.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        images[1] = images[0]  # a repeated picture: it must not be split from its copy
        labels = generator.integers(0, 10, count).astype(np.uint8)
        header = struct.pack(">HBB3I", 0, 8, 3, count, 28, 28)
        (place / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.tobytes()))
        (place / f"{stem}-labels.idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, count) + labels.tobytes())


def rows(split):
    return {x.tobytes() for x in split.x}


@pytest.mark.parametrize("name", GENERATED)
def test_generated_sets_keep_the_protocol(name, folder):
    source, found = dataset.source(name), dataset.load(name, folder)
    assert list(found.splits) == ["train", "validation", "test"]
    assert {"title", "source", "licence", "attribution", "splits"} <= found.card.keys()
    for split in found.splits.values():
        assert split.x.shape[1:] == source.shape and split.x.dtype == source.dtype and split.label.dtype == np.int32
        assert len(split.x) == len(split.label) > 100
        assert split.label.min() >= -1 and split.label.max() < max(source.num_classes, 1)
    train, validation, test = (rows(split) for split in found.splits.values())
    assert not (train & validation or train & test or validation & test)


def test_loading_is_stable_and_needs_no_tfds(folder):
    dataset.load("digits", folder)
    program = (
        "import sys; from latent.data import dataset; "
        f"print(dataset.load('digits', {str(folder)!r}).digests['train'], 'tensorflow_datasets' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [dataset.load("digits", folder).digests["train"], "False"]


def test_tfds_reads_what_was_prepared(folder):
    """The set is an ordinary TFDS one: whoever wants TFDS's own reader has it."""
    import tensorflow_datasets as tfds

    found = dataset.load("digits", folder)
    source = tfds.builder_from_directory(folder / "digits" / "1.0.0").as_data_source("test")
    assert len(source) == len(found.splits["test"].x)
    row = source[0]
    np.testing.assert_array_equal(found.splits["test"].x[row["index"]], row["x"])
    assert found.splits["test"].label[row["index"]] == row["label"]


def test_digits_are_scikit_learns(folder):
    from sklearn.datasets import load_digits

    found = dataset.load("digits", folder)
    theirs = {np.rint(image * (255 / 16)).astype(np.uint8).tobytes() for image in load_digits().images}
    assert set.union(*(rows(split) for split in found.splits.values())) == theirs
    assert sum(len(split.x) for split in found.splits.values()) == 1797


def test_idx_files_become_a_set(raw, folder):
    prepare.prepare("mnist", folder, raw)
    found = dataset.load("mnist", folder)
    assert (
        sum(len(found.splits[name].x) for name in ("train", "validation")) == 240 and len(found.splits["test"].x) == 30
    )
    assert found.splits["validation"].x.shape[1:] == (28, 28, 1)
    original = idx.read(raw)
    for name, split in found.splits.items():
        np.testing.assert_array_equal(split.x, original[name].x)
        np.testing.assert_array_equal(split.label, original[name].label)
    assert not rows(found.splits["train"]) & rows(found.splits["validation"])


def test_the_validation_split_depends_on_the_pictures_alone(raw):
    x = idx.read(raw)["validation"].x
    assert (arrays.content_bucket(x, idx.VALIDATION_BUCKETS) == 0).all()
    shuffled = np.random.default_rng(1).permutation(240)
    images = idx.read_file(idx.find(raw)[0], 3)[shuffled]
    assert rows_of(images[arrays.content_bucket(images, idx.VALIDATION_BUCKETS) == 0]) == rows_of(x)


def rows_of(x):
    return sorted(row.tobytes() for row in x)


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("train-labels.idx1-ubyte", lambda data: data[:-3], "truncated"),
        ("train-labels.idx1-ubyte", lambda data: b"\x00\x00\x0d\x01" + data[4:], "unsigned bytes"),
        ("train-images-idx3-ubyte.gz", lambda data: data[: len(data) // 2], "cannot be read"),
        ("train-images-idx3-ubyte.gz", lambda data: b"", "cannot be read"),
        ("t10k-labels.idx1-ubyte", lambda data: struct.pack(">HBBI", 0, 8, 1, 29) + data[8:-1], "29 labels for 30"),
        ("t10k-labels.idx1-ubyte", None, "t10k-labels"),
    ],
)
def test_damaged_files_are_refused(tmp_path, file, change, words):
    write_idx(tmp_path)
    if change is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(change((tmp_path / file).read_bytes()))
    with pytest.raises(UserError, match=words):
        prepare.prepare("mnist", tmp_path / "data", tmp_path)
    assert not list((tmp_path / "data").rglob("*.npy"))


def test_files_of_another_set_are_refused(tmp_path):
    images = np.zeros((5, 20, 20), np.uint8)
    for stem in ("train", "t10k"):
        header = struct.pack(">HBB3I", 0, 8, 3, 5, 20, 20)
        (tmp_path / f"{stem}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        (tmp_path / f"{stem}-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, 5) + bytes(5))
    with pytest.raises(UserError, match=r"shape \(20, 20, 1\), mnist has uint8 of \(28, 28, 1\)"):
        prepare.prepare("mnist", tmp_path / "data", tmp_path)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damaged_arrays_are_refused(tmp_path, damage):
    dataset.load("digits", tmp_path)
    path = tmp_path / "digits" / "1.0.0" / "arrays" / "train-x.npy"
    data = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if damage == "flip" else data[:1000])
    with pytest.raises(UserError, match=r"data.name='digits'.*delete that folder"):
        dataset.load("digits", tmp_path)


def test_a_set_that_cannot_be_fetched_names_the_remedy(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    with pytest.raises(UserError, match=r"python -m scripts.prepare_data mnist --from=DIRECTORY"):
        dataset.load("mnist", tmp_path)
    with pytest.raises(UserError, match=r"prepare_data binarized_mnist"):
        dataset.load("binarized_mnist", tmp_path)


def test_fixed_binary_mnist(tmp_path):
    generator = np.random.default_rng(0)
    pixels = {part: generator.integers(0, 2, (count, 784)) for part, count in (("train", 7), ("valid", 4), ("test", 5))}
    for part, values in pixels.items():
        np.savetxt(tmp_path / f"binarized_mnist_{part}.amat", values, fmt="%d")
    prepare.prepare("binarized_mnist", tmp_path / "data", tmp_path)
    found = dataset.load("binarized_mnist", tmp_path / "data")
    np.testing.assert_array_equal(found.splits["validation"].x.reshape(4, 784), 255 * pixels["valid"])
    assert (found.splits["test"].label == -1).all()
    (tmp_path / "binarized_mnist_test.amat").write_text("0 1 0\n")
    with pytest.raises(UserError, match="784 zeros and ones"):
        prepare.prepare("binarized_mnist", tmp_path / "other", tmp_path)


@pytest.mark.slow
def test_the_script(tmp_path, raw):
    call = lambda *words: subprocess.run(  # noqa: E731
        [sys.executable, "-m", "scripts.prepare_data", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    done = call("fashion_mnist", f"--from={raw}", f"--data_dir={tmp_path}")
    assert done.returncode == 0 and "train" in done.stdout and not done.stderr, done
    nearest = call("fashon_mnist", f"--from={raw}", f"--data_dir={tmp_path}")
    assert nearest.returncode == 2 and "Did you mean 'fashion_mnist'" in nearest.stderr
    listing = call("--list")
    assert listing.returncode == 0 and all(name in listing.stdout for name in dataset.sources())


def test_the_real_mnist_if_it_is_there():
    """Mean pixel of the 60,000 training images: 0.130660 and 0.286041 tell a wrong file or a wrong scale."""
    expected = {"mnist": 0.130660, "fashion_mnist": 0.286041}
    found = [name for name in expected if (dataset.data_directory(None) / name / "1.0.0" / "arrays").is_dir()]
    if not found:
        pytest.skip("neither set is prepared on this machine (python -m scripts.prepare_data)")
    for name in found:
        splits = dataset.load(name).splits
        x = np.concatenate([splits["train"].x, splits["validation"].x])
        assert len(x) == 60_000 and x.mean() / 255 == pytest.approx(expected[name], abs=1e-6)


def test_tfds_fetches_what_has_a_server(raw, tmp_path, monkeypatch):
    """The download manager's path, against a server on the loopback interface."""
    handler = functools.partial(QuietHandler, directory=str(raw))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        urls = tuple(f"{address}/{path.name}" for path in idx.find(raw))
        monkeypatch.setattr(mnist, "SOURCE", mnist.SOURCE._replace(urls=urls))
        found = dataset.load("mnist", tmp_path)
        server.shutdown()
    for name, split in idx.read(raw).items():
        np.testing.assert_array_equal(found.splits[name].x, split.x)


@pytest.mark.parametrize("fault", ["missing", "checksum"])
def test_a_download_that_fails_names_the_remedy(tmp_path, monkeypatch, fault):
    from tensorflow_datasets.core.download import download_manager, util

    def fail(*_, **__):
        raise {
            "missing": util.DownloadError("HTTP code: 404"),
            "checksum": download_manager.NonMatchingChecksumError("url", "path"),
        }[fault]

    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: io.BytesIO())
    monkeypatch.setattr(download_manager.DownloadManager, "download", fail)
    with pytest.raises(UserError, match=r"cannot be fetched.*prepare_data mnist --from=DIRECTORY"):
        dataset.load("mnist", tmp_path)


def test_tfds_knows_the_checksums_of_what_it_fetches():
    """TFDS verifies an address it has a checksum for, and fetches any other unverified."""
    from tensorflow_datasets.core.download import checksums

    known = checksums.get_all_url_infos()
    for source in dataset.sources().values():
        assert set(source.urls) <= set(known)


def test_deleted_arrays_come_back_without_raw_files_or_network(raw, tmp_path, monkeypatch):
    """What the message about damaged arrays advises must work."""

    def unreachable(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    arrays = prepare.prepare("mnist", tmp_path, raw)
    before = dataset.load("mnist", tmp_path).digests
    shutil.rmtree(arrays)
    assert dataset.load("mnist", tmp_path).digests == before


def test_other_files_for_a_prepared_set_are_not_ignored(raw, tmp_path):
    prepare.prepare("mnist", tmp_path / "data", raw)
    prepare.prepare("mnist", tmp_path / "data", raw)  # the same ones again: nothing to say
    other = tmp_path / "other"
    other.mkdir()
    write_idx(other, train=120, test=20)
    with pytest.raises(UserError, match=r"already prepared, from other data; delete .*1\.0\.0"):
        prepare.prepare("mnist", tmp_path / "data", other)
    assert len(dataset.load("mnist", tmp_path / "data").splits["test"].x) == 30


def test_a_killed_process_leaves_nothing_in_the_way(tmp_path):
    dataset.load("digits", tmp_path)
    arrays = tmp_path / "digits" / "1.0.0" / "arrays"
    shutil.rmtree(arrays)
    leftover = arrays.with_name(f"arrays.{os.getpid()}.tmp")
    leftover.mkdir()
    (leftover / "train-x.npy").write_bytes(b"half")
    dataset.load("digits", tmp_path)
    assert not leftover.exists()


@pytest.mark.parametrize(
    ("train", "label", "words"), [(240, 200, "label 200 in the test files"), (2, 0, "split would be empty")]
)
def test_labels_and_sizes_are_checked(tmp_path, train, label, words):
    write_idx(tmp_path, train=train)
    path = tmp_path / "t10k-labels.idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + bytes([label]))
    with pytest.raises(UserError, match=words):
        prepare.prepare("mnist", tmp_path / "data", tmp_path)


@pytest.mark.slow
def test_two_processes_may_prepare_at_once_and_say_nothing(tmp_path):
    program = f"from latent.data import dataset; print(dataset.load('digits', {str(tmp_path)!r}).digests['test'])"
    calls = [
        subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    said = [call.communicate(timeout=120) for call in calls]
    assert said[0] == said[1] == (f"{dataset.load('digits', tmp_path).digests['test']}\n".encode(), b"")


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass
