"""The kernel distance against reference values, its definition, and the spread of repeated draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from latent import config
from latent.errors import UserError
from latent.metrics import kid

REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "feature_metrics.npz")
SETS = ("full", "rankdef", "fewsamples", "duplicates", "identical", "disjoint", "constant_vs_random")


@pytest.mark.parametrize("name", SETS)
def test_equals_the_reference(name):
    found = kid.of_features(REFERENCE[f"{name}__real"], REFERENCE[f"{name}__fake"]).value
    # The reference of the identical sets keeps the diagonal of the cross term, as the U-statistic does.
    assert found == pytest.approx(float(REFERENCE[f"{name}__kid_full_unbiased"]), rel=1e-8, abs=1e-8)


def test_subsets_equal_the_reference():
    real, fake = REFERENCE["full__real"], REFERENCE["full__fake"]
    rows = zip(REFERENCE["kid_subset_idx_real"], REFERENCE["kid_subset_idx_fake"], strict=True)
    found = [kid.of_features(real[a], fake[b]).value for a, b in rows]
    np.testing.assert_allclose(found, REFERENCE["kid_subset_values"], rtol=1e-8)


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_unbiased_with_the_right_error(shift):
    """Over 600 draws of two Gaussians: the mean is 0 where they are one (within four standard errors), and the stated
    variance is that of the draws, with equal laws (the second order alone; never below it) as with different ones."""
    generator = np.random.default_rng(0)
    draws = [
        kid.of_features(generator.normal(size=(40, 3)), shift + generator.normal(size=(60, 3))) for _ in range(600)
    ]
    values, variances = np.array(draws).T
    if shift == 0.0:
        assert abs(values.mean()) < 4 * values.std() / np.sqrt(600)
    ratio = np.mean(variances) / values.var()
    assert 1.1 < ratio < 1.7 if shift == 0.0 else 0.8 < ratio < 1.1


def test_chunks_change_nothing(monkeypatch):
    real, fake = REFERENCE["duplicates__real"], REFERENCE["duplicates__fake"]
    whole = kid.of_features(real, fake)
    monkeypatch.setattr(kid, "CHUNK", 7)
    np.testing.assert_allclose(kid.of_features(real, fake), whole, rtol=1e-12)


def test_too_few_samples_say_how_many_it_takes():
    with pytest.raises(UserError, match="at least 2 samples"):
        kid.of_features(np.zeros((1, 3)), np.zeros((9, 3)))
    options = {"extractor": "pixels", "num_samples": 99, "num_subsets": 10, "subset_size": 100}
    with pytest.raises(UserError, match=r"kid.num_samples=99 must be an integer of at least 100"):
        kid.names(config.Section(options))
    assert kid.names(config.Section({**options, "num_subsets": 0})) == ("kd_pixels",)
