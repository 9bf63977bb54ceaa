"""The sprite renderer against what is known of dSprites' pixels, and the way of factors from a source to a batch."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from latent import build, config
from latent.data import arrays, dataset, dsprites, dsprites_rendered, dsprites_rendered_small, feed, prepare
from latent.data.arrays import Split
from latent.errors import UserError

FULL, SMALL = dsprites_rendered.GRID, dsprites_rendered_small.GRID
LIT = {
    "square": (100, 144, 196, 256, 324, 400),
    "ellipse": (76, 104, 144, 184, 228, 288),
    "heart": (58, 84, 108, 140, 182, 222),
}
"""Lit pixels of the original at angle 0, by scale."""


@functools.cache
def sprite(shape, scale, orientation):
    return dsprites.render(FULL, shape, scale, orientation)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def small(folder):
    return dataset.load("dsprites_rendered_small", folder)


@pytest.mark.parametrize("shape", range(3), ids=dsprites.SHAPES)
def test_numbers_of_lit_pixels(shape):
    name = dsprites.SHAPES[shape]
    found = [int(dsprites.render(FULL, shape, scale, 0)[0, 0].sum()) for scale in range(6)]
    np.testing.assert_allclose(found, LIT[name], rtol=0 if name == "square" else 0.03)


def test_a_square_at_45_degrees():
    """Orientation 5 of 40 is 46 degrees; the original lights 368 pixels there."""
    found = sprite(0, 5, 5).sum(axis=(2, 3))
    assert abs(found.mean() - 368) < 0.03 * 368


def test_the_heart_is_the_original_s():
    """Its outline, row by row: (first, last) columns from the middle, in pixels, of the published bitmap."""
    image = sprite(2, 5, 0)[0, 0]
    rows = np.flatnonzero(image.any(axis=1))
    assert len(rows) in (17, 18) and abs(image.any(axis=0).sum() - 20) <= 1
    np.testing.assert_array_equal(image[:, :16], image[:, 31:15:-1])  # symmetric about x = 16
    published = [10, 14, 16, 18, 20, 20, 18, 18, 16, 16, 14, 12, 10, 8, 6, 4, 2]
    np.testing.assert_allclose(image[9:26].sum(axis=1), published, atol=2)


@pytest.mark.parametrize("shape", range(3), ids=dsprites.SHAPES)
def test_the_centre_of_mass_is_where_the_position_says(shape):
    for scale, orientation in ((0, 7), (5, 23)):
        images = sprite(shape, scale, orientation).astype(np.float64)
        total, pixel = images.sum(axis=(2, 3)), np.arange(64) + 0.5
        centre = np.linspace(16.0, 48.0, FULL.positions)
        x, y = (images.sum(axis=2) @ pixel) / total, (images.sum(axis=3) @ pixel) / total
        assert np.abs(x - centre[:, None]).max() < 0.5
        assert np.abs(y - centre[None, :]).max() < 0.5


def test_a_whole_pixel_of_position_shifts_the_image():
    """The first and the last position are 32 pixels apart, so that they have the same phase."""
    images = sprite(2, 3, 11)
    np.testing.assert_array_equal(images[0, 0, :32, :32], images[31, 31, 32:, 32:])
    np.testing.assert_array_equal(images[0, 31, 32:, :32], images[31, 0, :32, 32:])


def test_symmetries_of_the_shapes():
    """Both ends of the orientation are one angle; a half turn is a mirrored square and ellipse but not a heart."""
    for shape in range(3):
        np.testing.assert_array_equal(sprite(shape, 4, 0)[3, 5], sprite(shape, 4, 39)[3, 5])
    grid = dsprites.Grid(scales=2, orientations=5, positions=2)  # quarter turns
    for shape, turns in ((0, 1), (1, 2), (2, 4)):
        first = dsprites.render(grid, shape, 1, 0)[0, 0]
        same = [np.abs(dsprites.render(grid, shape, 1, turn)[0, 0] - 1.0 * first).sum() < 12 for turn in range(1, 5)]
        assert same == [turn % turns == 0 for turn in range(1, 5)], dsprites.SHAPES[shape]


def test_every_factor_matters_and_orders_the_grid():
    found = dsprites.factors(FULL)
    assert found.shape == (737_280, 5) and FULL.sizes == {
        "shape": 3,
        "scale": 6,
        "orientation": 40,
        "pos_x": 32,
        "pos_y": 32,
    }
    np.testing.assert_array_equal(found[[0, 1, 32, 1024, 40 * 1024]], [
        [0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 1, 0], [0, 0, 1, 0, 0], [0, 1, 0, 0, 0]
    ])  # fmt: skip
    area = [sprite(0, scale, 3)[5, 5].sum() for scale in range(6)]
    assert (np.diff(area) > 0).all()
    right, down = sprite(1, 2, 4)[20, 5], sprite(1, 2, 4)[5, 20]
    assert right[:, 32:].sum() > right[:, :32].sum() and down[32:].sum() > down[:32].sum()


def test_halving_averages():
    images = np.random.default_rng(0).integers(0, 2, (4, 64, 64)).astype(np.uint8)
    expected = images.reshape(4, 32, 2, 32, 2).mean(axis=(2, 4)) * 255
    assert np.abs(dsprites.halved(images) - expected).max() <= 0.5


@pytest.mark.slow
def test_splits_carry_factors_and_the_first_examples_are_a_sample(small):
    sizes = list(small.factors.values())
    assert sizes == [3, 3, 12, 8, 8] and sum(len(split.x) for split in small.splits.values()) == np.prod(sizes)
    together = np.concatenate([split.factors for split in small.splits.values()])
    assert len(np.unique(together, axis=0)) == np.prod(sizes)
    train = small.splits["train"]
    np.testing.assert_array_equal(train.label, train.factors[:, 0])
    for column, size in zip(train.factors[:500].T, sizes, strict=True):
        share = np.bincount(column, minlength=size) / 500
        np.testing.assert_allclose(share, 1 / size, atol=5 * np.sqrt((1 / size) / 500))
    for row in range(0, 500, 50):  # each image belongs to its factors
        shape, scale, orientation, x, y = train.factors[row].tolist()
        expected = dsprites.halved(dsprites.render(SMALL, shape, scale, orientation)[x, y])
        np.testing.assert_array_equal(train.x[row, ..., 0], expected)


def test_factors_are_part_of_the_digest_only_where_there_are_any(small):
    split = small.splits["test"]
    assert arrays.split_digest(split) == small.digests["test"]
    other = split._replace(factors=split.factors[::-1])
    assert arrays.split_digest(other) != small.digests["test"] != arrays.split_digest(split._replace(factors=None))
    # As before factors existed: arrays of sets without them stay valid.
    plain = Split(np.zeros((2, 3), np.float32), np.array([0, 1], np.int32))
    assert arrays.split_digest(plain) == "1b4d9086895a7d4c9d7fadbb272023c75ec14245bed2c62ad34750e491807caf"


def test_a_batch_has_the_factors_of_its_examples(small):
    split = small.splits["train"]
    found = feed.resident_feed(split, seed=0, batch_size=16)
    inputs = {name: values[0] for name, values in found.inputs(0, 1).items()}
    batch = jax.jit(found.fetch)(found.resident, inputs)
    np.testing.assert_array_equal(batch["factors"], split.factors[inputs["index"]])
    assert batch["factors"].dtype == np.int32
    plain = feed.resident_feed(split._replace(factors=None), seed=0, batch_size=16)
    assert "factors" not in plain.fetch(plain.resident, inputs)


def test_wrong_factors_are_refused(monkeypatch, tmp_path):
    source = dataset.source("dsprites_rendered_small")
    x = np.zeros((4, 32, 32, 1), np.uint8)
    good = Split(x, np.zeros(4, np.int32), np.zeros((4, 5), np.int32))
    for wrong in (None, good.factors[:, :4], good.factors + np.array([3, 0, 0, 0, 0], np.int32), good.factors - 1):
        splits = {name: good for name in ("train", "validation")} | {"test": good._replace(factors=wrong)}
        changed = source._replace(read=lambda directory, splits=splits: splits)
        monkeypatch.setattr(dataset, "sources", lambda changed=changed: {"dsprites_rendered_small": changed})
        with pytest.raises(UserError, match=r"factors in the test files.*'orientation': 12"):
            prepare.prepare("dsprites_rendered_small", tmp_path)


def test_a_config_with_factors_builds_and_one_without_is_refused(small, folder):
    changes = {"data.name": "dsprites_rendered_small", "data.dir": str(folder), "eval.metrics": ("mig", "elbo")}
    chosen = config.load("configs/vae.py:tiny", changes).to_dict()
    experiment = build.build(chosen)
    assert dict(experiment.spec.factors) == dict(small.factors)
    assert experiment.evaluation_data("test", 0, "").split.factors is not None
    with pytest.raises(UserError, match=r"eval\.metrics: mig needs known factors.*data\.name='digits'"):
        build.build(chosen | {"data": chosen["data"] | {"name": "digits"}})
