"""Image sets of TFDS by name: read without TensorFlow, prepared with it, refused in one line."""

from __future__ import annotations

import importlib.util
import io
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latent.data import catalogue, dataset, images, prepare
from latent.data.dataset import Options
from latent.errors import UserError

ROOT = Path(__file__).parents[2]


def write_prepared(folder, name, sizes, size=None):
    """What TFDS would have left: record files of PNG images with labels, and the set's description. Needs no
    TensorFlow. Returns {split: images} in the order of the files."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    builder = tfds.builder(name, data_dir=folder, file_format="array_record")
    place, found = Path(builder.data_path), {}
    place.mkdir(parents=True)
    for seed, (split, count) in enumerate(sizes.items()):
        height, width, channels = builder.info.features["image"].shape
        generator = np.random.default_rng(seed)
        sides = [(height, width) if size is None else size(row) for row in range(count)]
        found[split] = [generator.integers(0, 256, (*side, channels)).astype(np.uint8) for side in sides]
        writer = ArrayRecordWriter(str(place / f"{builder.name}-{split}.array_record-00000-of-00001"), "group_size:1")
        for row, pixels in enumerate(found[split]):
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            example = tf_example_pb2.Example()
            example.features.feature["image"].bytes_list.value.append(file.getvalue())
            for key in ("id", "file_name", "label"):
                if key == "label":
                    example.features.feature[key].int64_list.value.append(row % 10)
                elif key in builder.info.features:
                    example.features.feature[key].bytes_list.value.append(b"name")
            writer.write(example.SerializeToString())
        writer.close()
    describe(builder, **sizes)
    return found


def describe(builder, **sizes):
    """Writes what TFDS writes last: which splits there are, in which files."""
    from tensorflow_datasets.core import ShardedFileTemplate, splits

    Path(builder.data_path).mkdir(parents=True, exist_ok=True)
    kind = builder.info.file_format.value
    template = lambda split: ShardedFileTemplate(  # noqa: E731
        data_dir=builder.data_path, dataset_name=builder.name, split=split, filetype_suffix=kind
    )
    found = [
        splits.SplitInfo(name=split, shard_lengths=[count], num_bytes=0, filename_template=template(split))
        for split, count in sizes.items()
    ]
    builder.info.set_splits(splits.SplitDict(found))
    builder.info.write_to_directory(builder.data_path)


def test_a_prepared_set_is_read_without_tensorflow(tmp_path):
    original = write_prepared(tmp_path, "cifar10", {"train": 100, "test": 15})
    found = dataset.load("cifar10", tmp_path)
    assert found.num_classes == 10 and found.card["title"] == "cifar10/3.0.2" and not found.factors
    np.testing.assert_array_equal(found.splits["test"].x, original["test"])
    assert found.splits["test"].label.tolist() == [row % 10 for row in range(15)]
    labels = {pixels.tobytes(): row % 10 for row, pixels in enumerate(original["train"])}
    kept = [row for split in ("train", "validation") for row in zip(*found.splits[split][:2], strict=True)]
    assert len(kept) == 100 and {x.tobytes(): label for x, label in kept} == labels
    assert 1 < len(found.splits["validation"].x) < 30
    program = (
        f"import sys; from latent.data import dataset; found = dataset.load('cifar10', {str(tmp_path)!r}); "
        "print(found.digests['test'], 'tensorflow' in sys.modules, 'tensorflow_datasets' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [found.digests["test"], "False", "False"]


def test_images_of_many_sizes_need_one(tmp_path):
    sizes = {"train": 60, "validation": 12, "test": 12}
    original = write_prepared(tmp_path, "oxford_flowers102", sizes, size=lambda row: (6 + row % 3, 8))
    with pytest.raises(UserError, match=r"'oxford_flowers102' has images of many sizes: data.resize=SIDE"):
        dataset.load("oxford_flowers102", tmp_path)
    found = dataset.load("oxford_flowers102", tmp_path, Options(resize=4))
    for split, count in sizes.items():
        assert found.splits[split].x.shape == (count, 4, 4, 3)
        np.testing.assert_array_equal(found.splits[split].x[1], images.resized(original[split][1], 4))


def test_a_set_with_one_more_split_tests_on_it(tmp_path):
    original = write_prepared(tmp_path, "imagenet_resized/8x8", {"train": 100, "validation": 12})
    found = dataset.load("imagenet_resized/8x8", tmp_path)
    np.testing.assert_array_equal(found.splits["test"].x, original["validation"])
    assert len(found.splits["train"].x) + len(found.splits["validation"].x) == 100
    assert "test is TFDS's validation" in found.card["splits"]


@pytest.mark.parametrize("keep", [10, 40_000, -100])
def test_a_truncated_record_file_is_named(tmp_path, keep):
    write_prepared(tmp_path, "cifar10", {"train": 100, "test": 15})
    file = tmp_path / "cifar10" / "3.0.2" / "cifar10-train.array_record-00000-of-00001"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match=rf"{file.name} is truncated or damaged .*delete .*3\.0\.2"):
        dataset.load("cifar10", tmp_path)
    assert not (tmp_path / "cifar10" / "3.0.2" / "arrays").exists()


@pytest.mark.slow
def test_a_truncated_record_file_of_ours_is_named(tmp_path):
    dataset.load("digits", tmp_path)
    place = tmp_path / "digits" / "1.0.0"
    for path in (place / "arrays").iterdir():
        path.unlink()
    (place / "arrays").rmdir()
    file = next(place.glob("*test.array_record*"))
    data = file.read_bytes()
    file.unlink()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=rf"{file.name} is truncated or damaged"):
        dataset.load("digits", tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ciffar10", r"Did you mean 'cifar10', .*folder, or one of TFDS's \d+ names"),
        ("tfds:fashon_mnist", r"Did you mean 'fashion_mnist'"),
        ("imagenet_resized/65x65", r"Nearest of imagenet_resized: imagenet_resized/64x64"),
        ("cifar10:9.9.9", r"Nearest of cifar10: cifar10:3.0.2"),
        ("ag_news_subset", r"is not a set of images: its features are label, title, description"),
        ("cifar10", r'TFDS needs TensorFlow for that, once: pip install -e "\.\[tfds\]"'),
        ("coco/2017", r'TFDS needs TensorFlow for that, once: pip install -e "\.\[tfds\]"'),
    ],
)
def test_what_cannot_be_had_is_refused_in_one_line(tmp_path, monkeypatch, name, words):
    without_tensorflow(monkeypatch)
    with pytest.raises(UserError, match=words) as caught:
        dataset.load(name, tmp_path)
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_what_must_be_fetched_says_so_at_once(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "there")
    with pytest.raises(UserError, match=r"cannot be reached.*prepare_data cifar10 --from=DIRECTORY"):
        dataset.load("cifar10", tmp_path)
    with pytest.raises(UserError, match=r"must be fetched by hand \(manual_dir should contain two files"):
        dataset.load("imagenet2012", tmp_path, Options(resize=8))


def test_a_damaged_description_is_refused(tmp_path):
    write_prepared(tmp_path, "cifar10", {"train": 20, "test": 5})
    (tmp_path / "cifar10" / "3.0.2" / "features.json").write_text("{")
    with pytest.raises(UserError, match=r"cifar10/3.0.2 cannot be read .*delete it"):
        dataset.load("cifar10", tmp_path)


def test_what_was_prepared_for_tensorflow_is_refused(tmp_path):
    import tensorflow_datasets as tfds

    describe(tfds.builder("cifar10", data_dir=tmp_path, file_format="tfrecord"), train=40, test=40)
    with pytest.raises(UserError, match=r"cifar10/3.0.2 was prepared as tfrecord"):
        dataset.load("cifar10", tmp_path)


def test_ours_and_theirs_of_one_name_are_kept_apart(tmp_path):
    place = tmp_path / "mnist"
    for version in (dataset.source("mnist").version, "3.0.9", "3.0.10", "incomplete.3.0.11"):
        (place / version).mkdir(parents=True)
        (place / version / "dataset_info.json").write_text("{}")
    assert catalogue._versions("tfds:mnist", tmp_path) == [place / "3.0.9", place / "3.0.10"]
    assert catalogue._versions("tfds:mnist:3.0.9", tmp_path) == [place / "3.0.9"]


def without_tensorflow(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "tensorflow" else real(name, *_))
    monkeypatch.setitem(sys.modules, "tensorflow", None)


@pytest.mark.parametrize(
    ("name", "resize", "shape", "classes"),
    [
        ("cifar10", None, (32, 32, 3), 10),
        ("celeb_a", 16, (16, 16, 3), 0),
        ("imagenet_resized/64x64", None, (64, 64, 3), 1000),
        ("oxford_flowers102", 8, (8, 8, 3), 102),
        ("tfds:mnist", 14, (14, 14, 1), 10),
    ],
)
def test_every_image_set_can_be_had(tmp_path, monkeypatch, name, resize, shape, classes):
    """TFDS's own mock of its sets: the real features, random examples."""
    pytest.importorskip("tensorflow", reason=f"TFDS's mock needs TensorFlow ({catalogue.INSTALL})")
    import tensorflow_datasets as tfds

    describe(tfds.builder(name.removeprefix("tfds:"), data_dir=tmp_path, file_format="array_record"), train=40, test=40)
    monkeypatch.setattr(catalogue, "_require_means", lambda *_: None)  # the mock fetches nothing
    with tfds.testing.mock_data(num_examples=40, data_dir=str(tmp_path)):
        found = dataset.load(name, tmp_path / "empty", Options(resize=resize))
    assert found.num_classes == classes
    assert len(found.splits["train"].x) + len(found.splits["validation"].x) == len(found.splits["test"].x) == 40
    for split in found.splits.values():
        assert split.x.shape[1:] == shape and split.x.dtype == np.uint8
        assert (split.label == -1).all() if not classes else 0 <= split.label.min() <= split.label.max() < classes


MADE = {"train": 1504176606, "t10k": 1504176627}
"""When the authors packed their files, in seconds: all that Debian's lack to be the ones that TFDS knows."""


@pytest.mark.slow
def test_tfds_prepares_the_real_fashion_mnist(tmp_path):
    """TFDS's own builder, its checksums included, on Debian's files."""
    pytest.importorskip("tensorflow", reason=f"TFDS's builders need TensorFlow ({catalogue.INSTALL})")
    origin = Path("/usr/share/datasets/fashion-mnist")
    if not origin.is_dir():
        pytest.skip("apt-get install dataset-fashion-mnist brings the files")
    raw = tmp_path / "raw"
    raw.mkdir()
    for path in origin.glob("*.gz"):
        data = path.read_bytes()
        header = b"\x1f\x8b\x08\x08" + struct.pack("<I", MADE[path.name.split("-")[0]]) + data[8:10]
        (raw / path.name).write_bytes(header + path.stem.encode() + b"\0" + data[10:])
    catalogue.prepare("tfds:fashion_mnist", tmp_path, None, raw)
    found = dataset.load("tfds:fashion_mnist", tmp_path)
    prepare.prepare("fashion_mnist", tmp_path, raw)
    ours = dataset.load("fashion_mnist", tmp_path)
    by_content = lambda split: sorted(zip((x.tobytes() for x in split.x), split.label.tolist(), strict=True))  # noqa: E731
    assert by_content(found.splits["test"]) == by_content(ours.splits["test"])
    assert sum(len(found.splits[split].x) for split in ("train", "validation")) == 60_000
