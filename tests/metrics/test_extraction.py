"""Features of images: no batch, no broken value and no wrong name passes unseen."""

from __future__ import annotations

import numpy as np
import pytest

from latent import config
from latent.errors import UserError
from latent.extractors import catalogue, lenet, pixels
from latent.metrics import extraction, frechet_distance, kid, passport, prdc


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((150, 8, 8, 1)).astype(np.float32)


def test_batches_of_features_change_no_result(images):
    extractor = lenet.load("lenet_digits")
    one, two = (extraction.outputs(extractor, images, batch)["features"] for batch in (150, 7))
    np.testing.assert_allclose(one, two, atol=1e-5)
    for score in (frechet_distance.of_features, kid.of_features, prdc.of_features):
        first, second = (np.asarray(score(values[:75], values[75:])) for values in (one, two))
        np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-5)


def test_pixels_are_the_values_in_order(images):
    found = extraction.outputs(catalogue.load("pixels", (8, 8, 1)), images)
    assert set(found) == {"features"}
    np.testing.assert_array_equal(found["features"], images.reshape(150, 64))
    assert "(8, 8, 1)" in extraction.misfit(pixels.load((8, 8, 1)), images[:, :4])


def test_features_that_are_not_finite_are_counted(images):
    broken = images.copy()
    broken[3, 0, 0], broken[9, 0, 0] = np.nan, np.inf
    for extractor in (pixels.load((8, 8, 1)), lenet.load("lenet_digits")):
        with pytest.raises(passport.Undefined, match=rf"{extractor.name} are not finite for 2 of 150 .*number 3"):
            extraction.outputs(extractor, broken)
    exploding = lenet.load("lenet_digits")._replace(features=lambda x: {"features": 1.0 / x[:, 0, 0]})
    with pytest.raises(passport.Undefined, match="features of extractor=lenet_digits are not finite for 1 of 150"):
        extraction.outputs(exploding, np.concatenate([images[:149], np.zeros((1, 8, 8, 1), np.float32)]))


@pytest.mark.parametrize("classes", [False, True])
def test_unknown_extractors_are_refused(classes):
    options = config.Section({"extractor": "pixels", "num_samples": 5})
    if classes:
        with pytest.raises(UserError, match=r"x\.extractor='pixels'"):
            extraction.require("x", options, 1, classes=True)
    else:
        extraction.require("x", options, 1)
        with pytest.raises(UserError, match=r"num_samples=5 must be an integer of at least 6"):
            extraction.require("x", options, 6)
        with pytest.raises(UserError, match="Did you mean 'pixels'"):
            extraction.require_extractor("x", config.Section({"extractor": "pixel"}))
