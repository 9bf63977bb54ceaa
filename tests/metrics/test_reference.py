"""Reference features on disk: found again where nothing changed, and never where anything did."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from latent import config, evaluation_data
from latent.data.arrays import Split
from latent.extractors import lenet
from latent.metrics import extraction, frechet_distance, moments, reference
from latent.types import Model, State

STATE = State(jnp.int32(0), {}, {}, {}, {}, {}, jnp.int32(-1))
IMAGES = np.random.default_rng(0).integers(0, 256, (90, 8, 8, 1), np.uint8)
PROTOCOL = {"data": "digits", "split": "test", "data_sha256": "a" * 64, "preprocessing": {"binarise": "none"}}


def evaluated(directory, images=IMAGES, seed=0, **protocol):
    model = Model(lambda *_: ({}, {}), (), lambda *_: {}, lambda params, extra, keys, condition: FAKE[: len(keys)])
    split = Split(images, np.zeros(len(images), np.int32))
    prepare = lambda raw, streams, train: {**raw, "x": raw["x"] / np.float32(255)}  # noqa: E731
    told = PROTOCOL | protocol
    return evaluation_data.EvaluationData(model, split, prepare, told, seed=seed, batch_size=90, directory=directory)


FAKE = np.random.default_rng(1).random((90, 8, 8, 1)).astype(np.float32)


class Counted:
    """An extractor that says how many images it has looked at."""

    def __init__(self, **changes):
        self.seen, original = 0, lenet.load("lenet_digits")

        def features(x):
            self.seen += len(x)
            return original.features(x)

        self.extractor = original._replace(features=features, **changes)


def seen(data, **changes):
    """How many images a fresh extractor looks at for the features of `data`."""
    counted = Counted(**changes)
    features = extraction.of_split(counted.extractor, STATE, data)
    assert features.shape == (90, 64)
    return counted.seen


def test_features_are_extracted_once(tmp_path):
    assert seen(evaluated(tmp_path)) == 90
    assert seen(evaluated(tmp_path)) == 0
    assert seen(evaluated(tmp_path, seed=1)) == 0  # nothing is drawn: the images are the same
    assert seen(evaluated(None)) == 90
    one, two = (extraction.of_split(lenet.load("lenet_digits"), STATE, evaluated(d)) for d in (tmp_path, None))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    "protocol",
    [{"data_sha256": "b" * 64}, {"preprocessing": {"binarise": "none", "crop": 8}}, {"split": "train"}],
    ids=["data", "preprocessing", "split"],
)
def test_other_data_are_no_hit(tmp_path, protocol):
    seen(evaluated(tmp_path))
    assert seen(evaluated(tmp_path, **protocol)) == 90


def test_another_extractor_is_no_hit(tmp_path):
    seen(evaluated(tmp_path))
    assert seen(evaluated(tmp_path), sha256="c" * 64) == 90
    card = {**lenet.load("lenet_digits").card, "input": "resized"}
    assert seen(evaluated(tmp_path), card=card) == 90


@pytest.mark.parametrize("drawn", [{"binarise": "dynamic"}, {"binarise": "none", "dequantise": True}])
def test_where_images_are_drawn_the_seed_counts(tmp_path, drawn):
    first = evaluated(tmp_path, preprocessing=drawn)
    assert seen(first) == 90 and seen(evaluated(tmp_path, seed=1, preprocessing=drawn)) == 90
    assert seen(first.reseeded(1)) == 0 and seen(first.reseeded(2)) == 90  # a population shares memory, not features


def test_what_is_not_identified_is_not_kept(tmp_path):
    data = evaluated(tmp_path)
    del data.protocol["data_sha256"]
    assert seen(data) == 90 and not (tmp_path / reference.FOLDER).exists()


def test_damaged_files_are_replaced(tmp_path):
    seen(evaluated(tmp_path))
    (path,) = (tmp_path / reference.FOLDER).iterdir()
    whole = path.read_bytes()
    with np.load(path) as stored:
        arrays = dict(stored)
    np.savez(tmp_path / "changed.npz", **arrays | {"features": arrays["features"] + 1})
    np.savez(tmp_path / "of_others.npz", **arrays | {"identity": "another"})
    for damaged in (whole[:200], b"", *(file.read_bytes() for file in tmp_path.glob("*.npz"))):
        path.write_bytes(damaged)
        assert seen(evaluated(tmp_path)) == 90
        with np.load(path) as stored:
            np.testing.assert_array_equal(stored["features"], arrays["features"])
            assert str(stored["identity"]) == str(arrays["identity"])


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path):
    (tmp_path / reference.FOLDER).write_text("a file")
    assert seen(evaluated(tmp_path)) == 90


def test_a_distance_is_the_same_from_disk(tmp_path):
    options = config.Section({"extractor": "lenet_digits", "num_samples": 80})
    first, again = (
        frechet_distance.run(data.model, STATE, data, options)[0] for data in (evaluated(tmp_path), evaluated(tmp_path))
    )
    assert first == again and first.value > 0


@pytest.mark.parametrize("chunk", [1, 7, 300])
def test_moments_do_not_depend_on_chunks(chunk):
    """Features far from zero: a sum of squares in one pass, or in float32, would lose every digit."""
    x = (1e4 + np.random.default_rng(0).normal(size=(300, 5)) * [1e-2, 1, 2, 3, 4]).astype(np.float32)
    found = moments.of(x, chunk)
    np.testing.assert_allclose(found.mean, np.mean(x, axis=0, dtype=np.float64), rtol=1e-14)
    np.testing.assert_allclose(found.covariance, np.cov(np.float64(x), rowvar=False), rtol=1e-9, atol=1e-12)
    assert found.count == 300 and found.covariance.dtype == np.float64
