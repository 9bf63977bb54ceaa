"""Dependence between dimensions of a code: closed forms of Gaussians, and reference values."""

from __future__ import annotations

import numpy as np
import pytest

from latent.metrics import code_dependence

CODES = ("perfect", "rotated", "noisy", "dead", "overcomplete", "duplicated", "random")


@pytest.fixture(scope="module")
def reference(request):
    return np.load(request.config.rootpath / "tests/reference/disentanglement.npz")


@pytest.mark.parametrize("name", CODES)
def test_reference_values(reference, name):
    codes = reference[f"{name}__codes_train"].astype(np.float64)
    covariance = np.cov(codes.T)
    if f"{name}__gauss_tc" in reference:
        expected = float(reference[f"{name}__gauss_tc"])
        assert code_dependence.total_correlation(covariance) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    expected = float(reference[f"{name}__gauss_wasserstein"])
    assert code_dependence.wasserstein(covariance) == pytest.approx(expected, rel=1e-7, abs=1e-7)


def test_two_correlated_gaussians():
    """Total correlation -log(1 - r^2) / 2 whatever the scales; eigenvalues 1 +- r give the distance."""
    correlation = 0.6
    covariance = np.array([[1.0, correlation], [correlation, 1.0]])
    scale = np.array([3.0, 0.1])
    expected = -0.5 * np.log(1 - correlation**2)
    assert code_dependence.total_correlation(covariance * scale * scale[:, None]) == pytest.approx(expected, abs=1e-12)
    roots = np.sqrt(1 + correlation) + np.sqrt(1 - correlation)
    assert code_dependence.wasserstein(covariance) == pytest.approx(4 - 2 * roots, abs=1e-12)
    assert code_dependence.wasserstein(np.diag(scale**2)) == pytest.approx(0.0, abs=1e-12)


def test_equal_dimensions_share_everything():
    x = np.random.default_rng(0).normal(size=(4000, 1))
    same = code_dependence.mean_mutual_information(np.concatenate([x, -2 * x], axis=1))
    independent = code_dependence.mean_mutual_information(np.random.default_rng(1).normal(size=(4000, 2)))
    assert same > 2.0 and independent < 0.1
    assert code_dependence.total_correlation(np.ones((2, 2))) == np.inf
