"""Discretised logistics: probabilities of the 256 levels of a pixel, against integrals, sums and one another."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from latent import config
from latent.autoencoding import discretised, likelihoods
from latent.errors import UserError
from latent.types import DataSpec

LEVELS = np.arange(256) / 255.0
LOG_PROBABILITY = jax.jit(discretised.log_probability)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


@pytest.mark.parametrize("location", [-0.3, 0.0, 0.437, 1.0, 1.6])
@pytest.mark.parametrize("scale", [3e-3, 0.05, 2.0])
def test_the_256_probabilities_are_integrals_of_the_density_and_sum_to_one(location, scale):
    arguments = (jnp.asarray(np.broadcast_to(values, 256), jnp.float32) for values in (LEVELS, location, np.log(scale)))
    found = np.exp(np.asarray(LOG_PROBABILITY(*arguments), np.float64))
    assert found.sum() == pytest.approx(1.0, abs=1e-4)
    edges = np.concatenate([[-np.inf], (LEVELS[1:] + LEVELS[:-1]) / 2, [np.inf]])
    density = scipy.stats.logistic(location, scale).pdf
    for level in (0, 1, 111, 112, 254, 255):
        mass = scipy.integrate.quad(density, edges[level], edges[level + 1], epsabs=1e-13)[0]
        assert found[level] == pytest.approx(mass, rel=2e-3, abs=1e-9)


def test_far_tails_have_a_finite_log_probability_and_gradient():
    value, gradient = jax.value_and_grad(lambda m: discretised.log_probability(jnp.float32(0.2), m, jnp.float32(-6.0)))(
        jnp.float32(0.9)
    )
    # The bin's middle, 0.7 / exp(-6) scales away: log density + log width, to a rounding of the location.
    exact = scipy.stats.logistic(0.9, np.exp(-6.0)).logcdf(0.2 + 1 / 510)
    exact += np.log(-np.expm1(-np.exp(6.0) / 255))
    assert float(value) == pytest.approx(exact, rel=1e-4) and float(gradient) == pytest.approx(-np.exp(6.0), rel=1e-3)


def test_one_component_of_a_mixture_is_the_single_logistic():
    mean, x = np.full((2, 2, 1), 0.5, np.float32), jnp.asarray(LEVELS[[0, 255, 17, 140]]).reshape(1, 2, 2, 1)
    single, mixture = discretised.logistic(mean, 0.1), discretised.mixture(mean, 0.1, 1)
    output = jnp.concatenate([0.5 + 0.2 * draw(1, 2, 2, 1), draw(1, 2, 2, 1, seed=1) - 2.0], axis=-1)
    with_logit = jnp.concatenate([draw(1, 2, 2, 1, seed=2), output], axis=-1)
    np.testing.assert_allclose(mixture.log_prob(with_logit, x), single.log_prob(output, x), rtol=1e-5)
    np.testing.assert_allclose(mixture.mean(with_logit), single.mean(output), rtol=1e-6)


def test_a_mixture_of_two_channels_sums_to_one_over_all_pairs_of_levels():
    """Coupled: the second channel's location depends on the first one's value, in every component."""
    mixture = discretised.mixture(np.full((1, 1, 2), 0.4, np.float32), 0.1, 3)
    output = jnp.asarray(mixture.output_bias) + 0.7 * draw(1, 1, 18)
    pairs = jnp.asarray(list(itertools.product(LEVELS, LEVELS)), jnp.float32).reshape(-1, 1, 1, 2)
    repeated = jnp.broadcast_to(output, (len(pairs), 1, 1, 18))
    log_prob = np.asarray(jax.jit(mixture.log_prob)(repeated, pairs), np.float64)
    assert np.exp(log_prob).sum() == pytest.approx(1.0, abs=1e-4)
    joint = np.exp(log_prob).reshape(256, 256)
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    assert np.abs(joint - independent).sum() > 0.05


@pytest.mark.parametrize(("name", "channels"), [("discretised_logistic", 6), ("discretised_logistic_mixture", 50)])
def test_the_output_bias_gives_the_mean_image_and_the_likelihood_is_a_mass(name, channels):
    mean = np.random.default_rng(0).uniform(0.2, 0.8, (4, 4, 3)).astype(np.float32)
    made = likelihoods.make(section(name), spec(mean))
    assert made.output_bias.shape == (4, 4, channels) and made.measure == "mass"
    np.testing.assert_allclose(made.mean(jnp.asarray(made.output_bias)[None])[0], mean, atol=1e-6)


def section(name):
    return config.Section({"likelihood": name, "observation_scale": 0.05, "mixture_components": 5})


def spec(mean, levels=256):
    return DataSpec("toy", mean.shape, 0, 10, mean, "unit", {}, levels)


def test_values_between_the_levels_are_refused():
    with pytest.raises(UserError, match=r"data\.dequantise=False"):
        likelihoods.make(section("discretised_logistic"), spec(np.full((2, 2, 1), 0.5, np.float32), levels=0))


@pytest.mark.parametrize("components", [0, 2])
def test_draws_have_the_probabilities_of_their_likelihood(components):
    """E[-log p(x)] over draws is the entropy, and so is the sum of -p log p over all pairs of levels."""
    bias = np.full((1, 1, 2), 0.5, np.float32)
    made = discretised.mixture(bias, 0.05, components) if components else discretised.logistic(bias, 0.05)
    output = jnp.asarray(
        made.output_bias + 0.5 * np.random.default_rng(1).normal(size=made.output_bias.shape), jnp.float32
    )
    drawn = jax.jit(jax.vmap(made.draw, (0, None)))(jax.random.split(jax.random.key(0), 20_000), output)
    assert set(np.unique(np.round(255 * np.asarray(drawn), 3) % 1)) == {0.0}
    score = jax.jit(lambda x: made.log_prob(jnp.broadcast_to(output, (len(x), *output.shape)), x))
    surprise = -np.asarray(score(drawn), np.float64)
    pairs = np.stack(np.meshgrid(LEVELS, LEVELS, indexing="ij"), axis=-1).reshape(-1, 1, 1, 2)
    every = np.asarray(score(jnp.asarray(pairs, jnp.float32)), np.float64)
    entropy = -np.sum(np.exp(every) * every)
    assert abs(surprise.mean() - entropy) < 5 * surprise.std() / np.sqrt(len(surprise))
