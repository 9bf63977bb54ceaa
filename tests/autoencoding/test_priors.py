"""Priors: their densities against scipy, their samples against their densities."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from latent import rng
from latent.autoencoding.gaussian import log_normal
from latent.autoencoding.priors import mixture, standard_normal, vamp
from latent.config import Section
from latent.types import DataSpec

SPEC = DataSpec("toy", (3,), 0, 100, np.full(3, 0.5, np.float32), "unit")


def posterior(params, x):
    return x[:, :2] * 4.0, jnp.full((len(x), 2), -1.0)


def priors():
    section = Section({"prior_components": 3})
    for module in (standard_normal, mixture, vamp):
        made = module.prior(section, (2,), SPEC, posterior)
        params = jax.jit(made.init)(jax.random.key(0))
        yield module.__name__.rpartition(".")[2], made, params


@pytest.mark.parametrize("name", ["standard_normal", "mixture", "vamp"])
def test_samples_follow_the_density(name):
    """E[log p] under its own samples equals that under a grid of the density: the density integrates to one, and the
    samples have its entropy, within four standard errors."""
    made, params = next((made, params) for found, made, params in priors() if found == name)
    if name == "vamp":
        params["prior"]["inputs"] = jnp.float32([[0.0, 0.2, 0.5], [1.0, 0.6, 0.5], [0.4, 0.9, 0.1]])
    axis = np.linspace(-8, 9, 340)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    log_prob = np.asarray(jax.jit(made.log_prob)(params, jnp.float32(grid)[:, None])[:, 0], np.float64)
    mass = np.exp(log_prob) * (axis[1] - axis[0]) ** 2
    assert mass.sum() == pytest.approx(1.0, abs=1e-3)
    z = jax.jit(made.sample)(params, rng.sample_keys(0, np.arange(20_000)))
    of_samples = np.asarray(jax.jit(made.log_prob)(params, z[:, None])[:, 0], np.float64)
    error = of_samples.std() / np.sqrt(len(of_samples))
    assert abs(of_samples.mean() - np.sum(mass * log_prob)) < 4 * error


@pytest.mark.parametrize("scale", [1.0, 0.05])
def test_derivatives_of_the_densities_are_those_of_the_sum(scale):
    """Gradients, forward over reverse and reverse over reverse against autodiff of the plain formula."""
    keys = jax.random.split(jax.random.key(0), 6)
    mean = 2.0 + jax.random.normal(keys[0], (4, 3))
    z = mean[jnp.arange(5) % 4] + scale * jax.random.normal(keys[1], (5, 3))
    log_scale = np.log(scale) + 0.1 * jax.random.normal(keys[2], (4, 3))
    direction = tuple(jax.random.normal(key, x.shape) for key, x in zip(keys[3:6], (z, mean, log_scale), strict=True))

    def derivatives(each):
        loss = lambda *point: jnp.sum(jax.nn.logsumexp(each(*point), axis=-1))  # noqa: E731
        gradient = jax.grad(loss, (0, 1, 2))
        along = lambda *point: jax.tree.reduce(jnp.add, jax.tree.map(jnp.vdot, gradient(*point), direction))  # noqa: E731
        point = (z, mean, log_scale)
        return (
            loss(*point),
            gradient(*point),
            jax.jvp(gradient, point, direction)[1],
            jax.grad(along, (0, 1, 2))(*point),
        )

    plain = lambda z, mean, log_scale: jnp.sum(log_normal(z[:, None], mean, log_scale), axis=-1)  # noqa: E731
    found, expected = (jax.jit(derivatives, static_argnums=0)(each) for each in (mixture.log_densities, plain))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    for ours, autodiff in zip(jax.tree.leaves(found[1:]), jax.tree.leaves(expected[1:]), strict=True):
        np.testing.assert_allclose(ours, autodiff, rtol=1e-3, atol=1e-4 * np.abs(autodiff).max())


def test_a_mixture_is_its_components():
    made = mixture.prior(Section({"prior_components": 2}), (2,), SPEC, posterior)
    own = {"logits": jnp.log(jnp.array([0.3, 0.7])), "mean": jnp.array([[0.0, 1.0], [2.0, -1.0]])}
    own["log_scale"] = jnp.log(jnp.array([[1.0, 0.5], [2.0, 0.3]]))
    z = jnp.float32(np.random.default_rng(0).normal(size=(9, 2)))
    densities = np.stack(
        [
            weight * np.prod(scipy.stats.norm(mean, np.exp(scale)).pdf(z), axis=1)
            for weight, mean, scale in zip((0.3, 0.7), own["mean"], own["log_scale"], strict=True)
        ],
        axis=1,
    )
    found = jax.jit(made.log_prob)({"prior": own}, z[:, None])[:, 0]
    np.testing.assert_allclose(found, np.log(densities.sum(axis=1)), rtol=1e-4)
    share = jax.jit(made.responsibilities)({"prior": own}, z)
    np.testing.assert_allclose(share, densities / densities.sum(axis=1, keepdims=True), rtol=1e-3, atol=1e-5)


def test_a_mixture_of_grids_is_that_of_their_numbers():
    section, z = Section({"prior_components": 3}), jax.random.normal(jax.random.key(1), (4, 2, 2, 3, 2))
    grids, vectors = (mixture.prior(section, shape, SPEC, None) for shape in ((2, 3, 2), (12,)))
    params = jax.jit(grids.init)(jax.random.key(0))
    own = params["prior"] | {name: params["prior"][name].reshape(3, 12) for name in ("mean", "log_scale")}
    found = jax.jit(grids.log_prob)(params, z)
    assert found.shape == (4, 2)
    np.testing.assert_allclose(found, jax.jit(vectors.log_prob)({"prior": own}, z.reshape(4, 2, 12)), rtol=1e-5)


def test_the_vamp_prior_is_the_mean_posterior_of_its_inputs():
    _, made, params = list(priors())[2]
    z = jnp.float32(np.random.default_rng(0).normal(size=(4, 1, 2)))
    mean, log_scale = posterior(params, jnp.clip(params["prior"]["inputs"], 0, 1))
    each = jnp.sum(log_normal(z[:, 0][:, None], mean, log_scale), axis=-1)
    np.testing.assert_allclose(made.log_prob(params, z)[:, 0], jnp.log(jnp.mean(jnp.exp(each), axis=1)), rtol=1e-4)
