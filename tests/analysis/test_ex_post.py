"""Densities fitted after training: exact for Gaussians, seeded per sample, and in the place of a model's prior."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from latent import rng
from latent.analysis import ex_post
from latent.errors import UserError

ROOT = np.array([[2.0, 0.0, 0.0], [-0.5, 1.0, 0.0], [0.3, 0.2, 0.1]])
MEAN = np.array([1.0, -2.0, 0.5])


def normal(size, seed=0):
    return MEAN + np.random.default_rng(seed).normal(size=(size, 3)) @ ROOT.T


def test_one_gaussian_is_the_moments_of_the_codes():
    codes = normal(500)
    density = ex_post.fit(codes, "gaussian")
    np.testing.assert_allclose(density.means[0], codes.mean(axis=0), atol=1e-12)
    covariance = np.cov(codes, rowvar=False, ddof=0) + ex_post.RIDGE * np.eye(3)
    np.testing.assert_allclose(density.roots[0] @ density.roots[0].T, covariance, atol=1e-12)


def test_samples_have_the_density_s_moments_and_components():
    far = ex_post.Density(np.array([0.25, 0.75]), np.stack([MEAN + 50, MEAN]), np.stack([ROOT, ROOT]), (3,))
    z = np.asarray(ex_post.sample(far, rng.sample_keys(0, jnp.arange(20_000))), np.float64)
    first = z[:, 0] > 25
    assert first.mean() == pytest.approx(0.25, abs=0.012)  # 4 standard errors
    near = z[~first]
    np.testing.assert_allclose(near.mean(axis=0), MEAN, atol=4 * 2.1 / np.sqrt(len(near)))
    np.testing.assert_allclose(np.cov(near, rowvar=False), ROOT @ ROOT.T, atol=0.2)


def test_a_sample_does_not_depend_on_its_batch_and_keeps_the_latent_s_shape():
    codes = np.random.default_rng(0).normal(size=(400, 2, 2, 3))
    density = ex_post.fit(codes, "mixture:2")
    many = ex_post.sample(density, rng.sample_keys(1, jnp.arange(8)))
    assert many.shape == (8, 2, 2, 3)
    np.testing.assert_allclose(ex_post.sample(density, rng.sample_keys(1, jnp.arange(3, 5))), many[3:5], rtol=1e-6)


def log_prob(density, z):
    normals = [scipy.stats.multivariate_normal(m, r @ r.T) for m, r in zip(density.means, density.roots, strict=True)]
    return np.log(sum(weight * normal.pdf(z) for weight, normal in zip(density.weights, normals, strict=True)))


def test_a_mixture_fits_two_clusters_better_than_one_gaussian():
    codes = np.concatenate([normal(400), normal(400, 1) + 20])
    held_out = np.concatenate([normal(200, 2), normal(200, 3) + 20])
    one, two = (log_prob(ex_post.fit(codes, name), held_out).mean() for name in ("gaussian", "mixture:2"))
    assert two > one + 0.5


@pytest.mark.parametrize("name", ["mixture", "mixture:0", "mixture:x", "normal", "gaussian:2"])
def test_other_names_are_refused(name):
    with pytest.raises(UserError, match="Allowed: gaussian, mixture:K"):
        ex_post.components(name)


def test_too_few_codes_name_the_least():
    with pytest.raises(UserError, match="at least 8 codes, not 7"):
        ex_post.fit(normal(7), "mixture:2")


def test_the_prior_of_a_model_is_replaced():
    from latent.types import Latent, Model

    model = Model(
        init=None,
        players=(),
        terms=lambda p, e, batch, context: {"elbo": -batch, "kl": batch, "reconstruction": batch + 1},
        log_joint=lambda: None,
        simulate=lambda: None,
        encode=lambda p, e, x, keys: Latent(x, x, {"log_scale": x, "kl": x, "responsibilities": x}),
        decode=lambda p, e, z: p["shift"] + z,
        sample=None,
        log_weights=lambda: None,
        classes=3,
    )
    density = ex_post.Density(np.ones(1), MEAN[None], 1e-9 * ROOT[None], (3,))
    changed = ex_post.replace_prior(model, density)
    x = changed.sample({"shift": 10.0}, {}, rng.sample_keys(0, jnp.arange(4)))
    np.testing.assert_allclose(x, np.tile(10 + MEAN, (4, 1)), rtol=1e-5)
    assert changed.log_weights is changed.log_joint is changed.simulate is None and changed.classes == 0
    assert changed.terms({}, {}, jnp.zeros(2), None).keys() == {"reconstruction"}  # the others speak of the old p(z)
    assert changed.encode({}, {}, jnp.zeros(2), None).info.keys() == {"log_scale"}
    assert ex_post.replace_prior(model._replace(encode=None), density).encode is None
    with pytest.raises(UserError, match="decode"):
        ex_post.replace_prior(model._replace(decode=None), density)
