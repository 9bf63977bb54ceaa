"""Preprocessing: exact probabilities, the four binarisations, crops and flips with a key for every example."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from latent import config, rng
from latent.data import preprocess
from latent.data.arrays import Split, split_digest
from latent.data.dataset import Dataset
from latent.errors import UserError


def images(size=64, side=6, channels=1, seed=0):
    generator = np.random.default_rng(seed)
    make = lambda: Split(  # noqa: E731
        generator.integers(0, 256, (size, side, side, channels)).astype(np.uint8), np.zeros(size, np.int32)
    )
    return named({"train": make(), "validation": make(), "test": make()})


def named(splits):
    return Dataset("toy", splits, 10, {}, {name: split_digest(split) for name, split in splits.items()})


def build(dataset, **changes):
    section = base.get_config().data
    section.update_from_flattened_dict(changes)
    return preprocess.build(config.Section(section.to_dict()), dataset)


def apply(prepare, x, train=False, seed=0, step=0):
    positions = np.arange(len(x))
    raw = {"x": x, "label": np.zeros(len(x), np.int32), "index": positions, "position": positions}
    streams = rng.training_stream(seed, step, "data", positions) if train else rng.evaluation_stream(seed, positions)
    return np.asarray(jax.jit(lambda r: prepare(r, streams, train)["x"])(raw))


def test_grey_is_the_pixel_over_255():
    dataset, spec, prepare = build(images())
    x = dataset.splits["train"].x
    np.testing.assert_allclose(apply(prepare, x), x / 255.0, atol=1e-7)
    np.testing.assert_allclose(spec.mean, x.mean(axis=0) / 255.0, rtol=1e-5)
    assert spec.support == "unit" and spec.shape == (6, 6, 1) and spec.size == 64


def test_bernoulli_has_the_pixel_as_its_probability():
    """Every grey level, 20,000 draws: within 4.5 standard errors; 0 and 255 are certain."""
    x = np.broadcast_to(np.arange(256, dtype=np.uint8), (20_000, 256))
    keys = jax.random.split(jax.random.key(0), 20_000)
    drawn = np.asarray(jax.jit(preprocess.bernoulli)(jnp.asarray(x), keys))
    assert set(np.unique(drawn)) == {0.0, 1.0}
    probability = np.arange(256) / 255
    error = np.sqrt(probability * (1 - probability) / 20_000)
    assert np.all(np.abs(drawn.mean(axis=0) - probability) <= 4.5 * error)
    assert drawn[:, 0].sum() == 0 and drawn[:, 255].all()
    # Neighbours share a word of the generator: they must not share its bits.
    correlation = np.corrcoef(drawn[:, 100:156].T) - np.eye(56)
    assert np.abs(correlation).max() < 5 / np.sqrt(20_000)


def test_dynamic_is_drawn_at_every_use():
    dataset, spec, prepare = build(images(), binarise="dynamic")
    x = dataset.splits["train"].x
    one, two = apply(prepare, x, train=True, step=0), apply(prepare, x, train=True, step=1)
    assert spec.support == "binary" and not np.array_equal(one, two)
    np.testing.assert_array_equal(one, apply(prepare, x, train=True, step=0))
    assert set(np.unique(apply(prepare, x))) == {0.0, 1.0}


def test_seeded_draws_validation_then_test_once():
    original = images()
    dataset, spec, prepare = build(original, binarise="seeded", binarise_seed=777)
    generator = np.random.RandomState(777)
    for name in ("validation", "test"):
        expected = generator.binomial(1, original.splits[name].x / 255.0)
        np.testing.assert_array_equal(dataset.splits[name].x, 255 * expected)
        np.testing.assert_array_equal(apply(prepare, dataset.splits[name].x, seed=0), expected)
        np.testing.assert_array_equal(apply(prepare, dataset.splits[name].x, seed=1), expected)
    assert dataset.digests["test"] != original.digests["test"] and dataset.digests["train"] == original.digests["train"]
    x = dataset.splits["train"].x
    assert not np.array_equal(apply(prepare, x, train=True, step=0), apply(prepare, x, train=True, step=1))
    assert set(np.unique(apply(prepare, x))) == {0.0, 1.0}  # evaluation on the training split too
    assert spec.support == "binary"


def test_static_takes_binary_sets_only():
    with pytest.raises(UserError, match=r"data\.binarise='static'"):
        build(images(), binarise="static")
    binary = {
        name: Split((255 * (split.x > 99)).astype(np.uint8), split.label) for name, split in images().splits.items()
    }
    _, spec, prepare = build(named(binary), binarise="static")
    np.testing.assert_array_equal(apply(prepare, binary["test"].x), binary["test"].x / 255)
    assert spec.support == "binary"


def test_dequantisation_is_uniform_within_the_level():
    dataset, spec, prepare = build(images(size=400), dequantise=True)
    x = dataset.splits["train"].x
    noise = apply(prepare, x) * 256 - x
    assert noise.min() >= -1e-4 and noise.max() <= 1 + 1e-4
    assert noise.mean() == pytest.approx(0.5, abs=0.02) and noise.var() == pytest.approx(1 / 12, rel=0.05)
    assert spec.support == "unit"


def test_dequantised_values_stay_below_one_and_have_the_mean_of_the_spec():
    x = jnp.full((2000, 784), 255, jnp.uint8)
    drawn = jax.jit(preprocess.dequantised)(x, jax.random.split(jax.random.key(0), 2000))
    assert float(drawn.max()) < 1.0 and float(drawn.min()) >= 255 / 256
    dataset, spec, prepare = build(images(size=4000, side=2), dequantise=True)
    found = apply(prepare, dataset.splits["train"].x).mean(axis=0)
    np.testing.assert_allclose(spec.mean, (dataset.splits["train"].x.mean(axis=0) + 0.5) / 256, rtol=1e-6)
    np.testing.assert_allclose(found, spec.mean, atol=4.5 / 256 / np.sqrt(12 * 4000))


def test_a_binary_set_that_is_dequantised_is_no_longer_binary():
    binary = {
        name: Split((255 * (split.x > 99)).astype(np.uint8), split.label) for name, split in images().splits.items()
    }
    assert build(named(binary), dequantise=True)[1].support == "unit"
    assert build(named(binary))[1].support == "binary"


def test_crops_are_windows_of_the_padded_image():
    dataset, spec, prepare = build(images(side=6), crop=4, crop_padding=1)
    x = dataset.splits["train"].x
    assert spec.shape == (4, 4, 1)
    np.testing.assert_allclose(apply(prepare, x), x[:, 1:5, 1:5] / 255.0, atol=1e-6)
    np.testing.assert_allclose(spec.mean, x[:, 1:5, 1:5].mean(axis=0) / 255.0, rtol=1e-5)
    cropped = apply(prepare, x, train=True)
    padded = np.pad(x / 255.0, ((0, 0), (1, 1), (1, 1), (0, 0)))
    corners = set()
    for original, window in zip(padded, cropped, strict=True):
        places = [
            (i, j) for i in range(5) for j in range(5) if np.allclose(original[i : i + 4, j : j + 4], window, atol=1e-6)
        ]
        assert places
        corners.add(places[0])
    assert len(corners) > 10


def test_flips_happen_in_training_to_half_of_the_images():
    dataset, _, prepare = build(images(size=200), flip=True)
    x = dataset.splits["train"].x
    np.testing.assert_allclose(apply(prepare, x), x / 255.0, atol=1e-7)
    flipped = apply(prepare, x, train=True)
    mirrored = np.array([np.allclose(f, o[:, ::-1] / 255.0, atol=1e-6) for f, o in zip(flipped, x, strict=True)])
    kept = np.array([np.allclose(f, o / 255.0, atol=1e-6) for f, o in zip(flipped, x, strict=True)])
    assert np.all(mirrored ^ kept) and 70 < mirrored.sum() < 130


def test_vectors_pass_unchanged():
    x = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    split = Split(x, np.zeros(30, np.int32))
    _, spec, prepare = build(named({"train": split, "validation": split, "test": split}))
    np.testing.assert_array_equal(apply(prepare, x), x)
    assert spec.support == "real" and spec.shape == (2,)
    for change in ({"binarise": "dynamic"}, {"flip": True}, {"resize": 4}, {"crop": 1}, {"dequantise": True}):
        with pytest.raises(UserError, match=f"data.{next(iter(change))}="):
            build(named({"train": split, "validation": split, "test": split}), **change)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"binarise": "dinamic"}, "'dynamic'"),
        ({"crop": 7}, "data.crop=7"),
        ({"crop": 4, "crop_padding": -1}, "data.crop_padding=-1"),
        ({"dequantise": True, "binarise": "dynamic"}, "exclude each other"),
    ],
)
def test_impossible_requests_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        build(images(), **changes)
