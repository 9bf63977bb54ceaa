"""Mixtures: samples against their moments."""

from __future__ import annotations

import numpy as np
import pytest

from latent.data import mixture, mixture_2d, mixture_8d

MIXTURES = {"2d": mixture_2d.MIXTURE, "8d": mixture_8d.MIXTURE}


@pytest.fixture(params=MIXTURES)
def chosen(request):
    return MIXTURES[request.param]


def test_draws_have_the_moments(chosen):
    split = mixture.draw(chosen, 40_000, 2)
    mean = chosen.weights @ chosen.means
    centred = chosen.means - mean
    covariance = np.einsum("k,kij->ij", chosen.weights, chosen.covariances) + (centred.T * chosen.weights) @ centred
    scale = np.sqrt(np.diag(covariance) / 40_000)
    assert np.all(np.abs(split.x.mean(axis=0) - mean) < 4.5 * scale)
    np.testing.assert_allclose(np.cov(split.x.T), covariance, atol=0.05 * np.diag(covariance).max())
    frequency = np.bincount(split.label, minlength=len(chosen.weights)) / 40_000
    np.testing.assert_allclose(frequency, chosen.weights, atol=4.5 * np.sqrt(0.25 / 40_000))
