"""The Frechet distance against its closed form and the reference values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from latent.metrics import frechet_distance

REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "frechet.npz")


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
