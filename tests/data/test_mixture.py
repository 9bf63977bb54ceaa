"""Mixtures: density against scipy, score against autodiff, samples against their moments."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from latent.data import mixture, mixture_2d, mixture_8d

MIXTURES = {"2d": mixture_2d.MIXTURE, "8d": mixture_8d.MIXTURE}


@pytest.fixture(params=MIXTURES)
def chosen(request):
    return MIXTURES[request.param]


def test_log_density_is_the_weighted_sum(chosen):
    x = mixture.draw(chosen, 50, 0).x
    parts = [
        np.log(weight) + scipy.stats.multivariate_normal(mean, covariance).logpdf(x)
        for weight, mean, covariance in zip(*chosen, strict=True)
    ]
    found = jax.jit(lambda y: mixture.log_density(chosen, y))(jnp.asarray(x))
    np.testing.assert_allclose(found, np.logaddexp.reduce(parts, axis=0), rtol=1e-3, atol=1e-3)


def test_score_is_the_gradient(chosen):
    x = jnp.asarray(mixture.draw(chosen, 50, 1).x)
    gradient = jax.jit(jax.vmap(jax.grad(lambda y: mixture.log_density(chosen, y[None])[0])))(x)
    np.testing.assert_allclose(jax.jit(lambda y: mixture.score(chosen, y))(x), gradient, rtol=1e-3, atol=2e-2)


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
