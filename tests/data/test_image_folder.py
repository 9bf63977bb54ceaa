"""A folder of the user's own images: labels, splits, broken files, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from latent.data import dataset
from latent.data.dataset import Options
from latent.errors import UserError

SIDE = 6


def fill(folder, count, seed=0, size=(SIDE, SIDE), colour=True):
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    found = generator.integers(0, 256, (count, *size, 3) if colour else (count, *size)).astype(np.uint8)
    for number, pixels in enumerate(found):
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return found


@pytest.fixture
def root(tmp_path):
    return tmp_path / "pictures"


def load(root, tmp_path, **options):
    return dataset.load("folder", tmp_path / "data", Options(folder=str(root), **options))


def rows(split):
    return {x.tobytes() for x in split.x}


def test_subfolders_are_classes_with_anything_below_them(root, tmp_path):
    cats, dogs = fill(root / "cats" / "black", 40, 1), fill(root / "dogs", 40, 2)
    (root / "dogs" / "notes.txt").write_text("not an image")
    (root / ".cache").mkdir()
    (root / ".cache" / "thumbnail.png").write_bytes(b"hidden")
    found = load(root, tmp_path)
    assert found.num_classes == 2 and found.card["classes"] == "cats, dogs"
    original = {x.tobytes(): label for label, images in enumerate((cats, dogs)) for x in images}
    assert sum(len(split.x) for split in found.splits.values()) == len(original) == 80
    for split in found.splits.values():
        assert split.x.dtype == np.uint8 and split.label.dtype == np.int32
        assert [original[x.tobytes()] for x in split.x] == split.label.tolist()
    train, validation, test = map(rows, found.splits.values())
    assert len(train | validation | test) == 80 and len(train) > 50


def test_equal_images_are_in_one_split(root, tmp_path):
    fill(root / "a", 60, seed=3)
    fill(root / "b", 60, seed=3)
    train, validation, test = map(rows, load(root, tmp_path).splits.values())
    assert not (train & validation or train & test or validation & test)


def test_without_subfolders_there_are_no_labels(root, tmp_path):
    fill(root, 60, colour=False)
    found = load(root, tmp_path)
    assert found.num_classes == 0 and found.splits["train"].x.shape[1:] == (SIDE, SIDE, 1)
    assert all((split.label == -1).all() for split in found.splits.values())


def test_folders_of_splits(root, tmp_path):
    made = {
        (split, name): fill(root / split / name, 20, seed)
        for seed, (split, name) in enumerate((s, c) for s in ("train", "val", "test") for c in ("x", "y"))
    }
    found = load(root, tmp_path)
    for folder, split in (("train", "train"), ("val", "validation"), ("test", "test")):
        assert rows(found.splits[split]) == {x.tobytes() for name in "xy" for x in made[folder, name]}
    assert found.num_classes == 2 and np.bincount(found.splits["test"].label).tolist() == [20, 20]
    for file in (root / "val").rglob("*.png"):
        file.unlink()
    cut = load(root, tmp_path)
    assert rows(cut.splits["test"]) == rows(found.splits["test"])
    assert rows(cut.splits["validation"]) < rows(found.splits["train"])


def test_sizes_that_differ_need_a_size(root, tmp_path):
    fill(root / "a", 30, size=(8, 12))
    fill(root / "b", 30, size=(10, 10))
    with pytest.raises(UserError, match=r"000.png has 12x8 pixels and .*000.png 10x10; data.resize=SIDE"):
        load(root, tmp_path)
    found = load(root, tmp_path, resize=4)
    assert found.splits["train"].x.shape[1:] == (4, 4, 3)
    with pytest.raises(UserError, match=r"data.resize=0 must be at least 1"):
        load(root, tmp_path, resize=0)


def test_broken_files_are_named_and_left_out_up_to_a_limit(root, tmp_path, capsys):
    fill(root / "a", 50)
    good = (root / "a" / "000.png").read_bytes()
    (root / "a" / "003.png").write_bytes(good[: len(good) // 2])
    (root / "a" / "007.png").write_bytes(b"")
    limit = r"more than data.broken_limit=1 of its files cannot be read, the last is a/007.png"
    with pytest.raises(UserError, match=limit):
        load(root, tmp_path, broken_limit=1)
    assert not list((tmp_path / "data").rglob("*.npy")) and not list((tmp_path / "data").rglob("*.tmp"))
    capsys.readouterr()
    found = load(root, tmp_path, broken_limit=2)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and "a/003.png is left out: " in told[0] and "a/007.png is left out: " in told[1]
    assert "48 of 50 files" in found.card["splits"]
    assert sum(len(split.x) for split in found.splits.values()) == 48


def test_a_changed_folder_is_another_set(root, tmp_path):
    fill(root / "a", 50)
    first = load(root, tmp_path)
    assert load(root, tmp_path).digests == first.digests
    fill(root / "a", 51, seed=9)
    assert load(root, tmp_path).digests != first.digests


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: None, "is not a directory"),
        (lambda root: root.mkdir(), "holds no images"),
        (lambda root: fill(root / "a", 2), "2 examples are too few"),
        (lambda root: (fill(root / "a", 9), fill(root, 1)), "000.png lies beside folders of images"),
        (lambda root: (fill(root / "train" / "a", 9), fill(root, 1)), "000.png lies beside folders of images"),
    ],
)
def test_what_cannot_be_a_set_is_refused(root, tmp_path, make, words):
    make(root)
    with pytest.raises(UserError, match=words):
        load(root, tmp_path)
    with pytest.raises(UserError, match=r"data.folder=DIRECTORY is required"):
        dataset.load("folder", tmp_path / "data")
