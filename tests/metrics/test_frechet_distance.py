"""The Frechet distance against its closed form and the reference values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from latent.metrics import extraction, frechet_distance

REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "feature_metrics.npz")


def test_gaussians_with_a_common_basis_have_the_closed_form():
    """sum (mean difference)^2 + sum (difference of standard deviations)^2."""
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    a, b = np.array([1.0, 2.0, 0.5, 0.0]), np.array([2.0, 2.0, 0.1, 0.3])
    covariances = [basis @ np.diag(scales**2) @ basis.T for scales in (a, b)]
    mean = np.array([1.0, 0.0, -2.0, 0.5])
    found = frechet_distance.between(mean, covariances[0], np.zeros(4), covariances[1])
    assert found == pytest.approx(np.sum(mean**2) + np.sum((a - b) ** 2), rel=1e-6)


@pytest.mark.parametrize("name", ["full", "rankdef", "fewsamples", "duplicates", "constant_vs_random"])
def test_equals_the_reference(name):
    tolerance = {"rankdef": 1e-4, "fewsamples": 1e-4}.get(name, 1e-7)
    found = frechet_distance.of_features(REFERENCE[f"{name}__real"], REFERENCE[f"{name}__fake"])
    assert found == pytest.approx(float(REFERENCE[f"{name}__fid"]), abs=tolerance, rel=1e-7)


def test_a_set_is_at_distance_zero_from_itself():
    x = REFERENCE["full__real"]
    assert abs(frechet_distance.of_features(x, x)) < 1e-6


def test_pairs_are_resampled_together():
    """Reconstructions that add the same constant to every feature are at that distance however often one resamples."""
    x = REFERENCE["full__real"]
    compared = extraction.Compared(x, x + 0.25, {"split": "test"})
    found = frechet_distance.result("fd", compared, paired=True)
    assert found.value == pytest.approx(64 * 0.25**2, rel=1e-6) and found.standard_error < 1e-6
    assert frechet_distance.result("fd", compared).standard_error > 1e-2


def test_too_few_samples_say_how_many_it_takes():
    few = extraction.Compared(REFERENCE["fewsamples__real"], REFERENCE["fewsamples__fake"], {})
    found = frechet_distance.result("fd", few)
    assert found.value is None and "at least 65" in found.reason and "not 32" in found.reason
