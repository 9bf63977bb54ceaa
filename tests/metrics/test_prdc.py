"""Precision, recall, density and coverage: reference values, extremes, ties, and the spread of repeated draws."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from latent import config
from latent.errors import UserError
from latent.metrics import frechet_distance, prdc, uncertainty

REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "feature_metrics.npz")
SETS = ("full", "rankdef", "fewsamples", "duplicates", "identical", "disjoint", "constant_vs_random")


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("name", SETS)
def test_equals_the_reference(name, k):
    found = prdc.of_features(REFERENCE[f"{name}__real"], REFERENCE[f"{name}__fake"], k)
    np.testing.assert_allclose(found, REFERENCE[f"{name}__prdc_k{k}"], rtol=1e-12)


def test_far_from_the_origin_and_in_chunks_it_is_the_same(monkeypatch):
    real, fake = REFERENCE["duplicates__real"], REFERENCE["duplicates__fake"]
    whole = prdc.of_features(real, fake, 5)
    monkeypatch.setattr(prdc, "CHUNK", 7)
    np.testing.assert_array_equal(prdc.of_features(real, fake, 5), whole)
    real, fake = (values.astype(np.float64) + 2.0**12 for values in (real, fake))  # exact in binary
    np.testing.assert_array_equal(prdc.of_features(real, fake, 5), whole)


def test_collapse_and_outliers_show_where_they_should():
    """One outlier of the data inflates precision and not density; a collapsed generator has no recall."""
    generator = np.random.default_rng(0)
    real = generator.normal(size=(200, 4))
    far = generator.normal(size=(100, 4)) + 20.0
    real[0] = 25.0  # its ball reaches back to the others, over the far samples
    precision, _, density, _ = prdc.of_features(real, far, 5)
    assert precision == 1.0 and density == pytest.approx(0.2)
    collapsed = np.zeros((100, 4)) + 1e-6 * generator.normal(size=(100, 4))
    precision, recall, _, coverage = prdc.of_features(real[1:], collapsed, 5)
    assert precision == 1.0 and recall == 0.0 and coverage < 0.5


@pytest.mark.parametrize(("dimensions", "sizes"), [(2, (300, 300)), (24, (60, 200))])
def test_the_standard_error_is_the_spread_of_draws(dimensions, sizes):
    generator = np.random.default_rng(0)
    values, errors = [], []
    score = lambda real, fake: prdc.of_features(real, fake, 3)  # noqa: E731
    for draw in range(60):
        real, fake = (generator.normal(size=(size, dimensions)) for size in sizes)
        sets = real, 0.8 * fake + 0.1
        values.append(score(*sets))
        if draw % 6 == 0:
            errors.append(uncertainty.by_halves(score, sets, prdc.HALVINGS))
    ratio = np.sqrt(np.mean(np.square(errors), axis=0)) / np.std(values, axis=0)
    assert np.all((ratio > 0.5) & (ratio < 1.7)), ratio


def test_too_few_samples_say_how_many_it_takes():
    with pytest.raises(UserError, match="at least 6 samples"):
        prdc.of_features(np.zeros((5, 3)), np.zeros((9, 3)), 5)
    with pytest.raises(UserError, match=r"prdc.num_samples=11 must be an integer of at least 12"):
        prdc.names(config.Section({"extractor": "pixels", "num_samples": 11, "k": 5}))
    with pytest.raises(UserError, match=r"prdc.k=0"):
        prdc.names(config.Section({"extractor": "pixels", "num_samples": 59, "k": 0}))


@pytest.mark.slow
def test_ten_thousand_features_take_less_than_a_minute():
    generator = np.random.default_rng(0)
    real, fake = (generator.normal(size=(10_000, 256)).astype(np.float32) for _ in range(2))
    start = time.perf_counter()
    prdc.of_features(real, fake, 5)
    frechet_distance.of_features(real, fake)
    assert time.perf_counter() - start < 60
