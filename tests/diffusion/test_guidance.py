"""Guidance against Bayes' rule on a mixture whose class-conditional denoisers are exact."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent.diffusion import guidance, predictions
from tests.diffusion import exact

ALPHA, SIGMA = jnp.asarray(0.7), jnp.asarray(0.6)
X = jnp.asarray(exact.draw(exact.MIXTURE, 6), jnp.float32)
COMPONENT = 1
CLASS = exact.Mixture(np.ones(1), exact.MIXTURE.means[1:2], exact.MIXTURE.covs[1:2])
UNCONDITIONAL = exact.denoise(exact.MIXTURE, X, ALPHA, SIGMA)
CONDITIONAL = exact.denoise(CLASS, X, ALPHA, SIGMA)


def log_prob(x):
    """log p(component | x_t), exactly."""
    return jax.nn.log_softmax(exact.components(exact.MIXTURE, x, ALPHA, SIGMA)[0], axis=1)[:, COMPONENT]


def test_scale_one_is_conditional_and_zero_unconditional():
    for scale, expected in ((1.0, CONDITIONAL), (0.0, UNCONDITIONAL), (1, CONDITIONAL)):
        found = guidance.classifier_free(CONDITIONAL, UNCONDITIONAL, scale)
        np.testing.assert_array_equal(found.x0, expected.x0)
        np.testing.assert_array_equal(found.eps, expected.eps)


def test_guidance_is_linear_and_the_same_in_every_prediction():
    found = guidance.classifier_free(CONDITIONAL, UNCONDITIONAL, 3.0)
    np.testing.assert_allclose(found.x0, UNCONDITIONAL.x0 + 3 * (CONDITIONAL.x0 - UNCONDITIONAL.x0), atol=1e-5)
    np.testing.assert_allclose(ALPHA * found.x0 + SIGMA * found.eps, X, atol=1e-5)
    each = guidance.classifier_free(CONDITIONAL, UNCONDITIONAL, jnp.asarray([0.0, 1, 2, 3, 4, 5]))
    np.testing.assert_allclose(each.x0[3], found.x0[3], atol=1e-6)
    np.testing.assert_array_equal(each.x0[0], UNCONDITIONAL.x0[0])


def test_autoguidance_leads_away_from_the_weaker_model():
    found = guidance.autoguidance(CONDITIONAL, UNCONDITIONAL, 2.0)
    np.testing.assert_allclose(found.eps - CONDITIONAL.eps, CONDITIONAL.eps - UNCONDITIONAL.eps, atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_the_exact_classifier_gives_classifier_free_guidance(scale):
    """grad log p(y|x) is the difference of the scores, so both kinds of guidance agree at every scale (Bayes)."""
    gradient = guidance.classifier_gradient(log_prob, X)
    found = guidance.classifier(UNCONDITIONAL, gradient, ALPHA, SIGMA, scale)
    expected = guidance.classifier_free(CONDITIONAL, UNCONDITIONAL, scale)
    np.testing.assert_allclose(found.x0, expected.x0, atol=2e-5)
    np.testing.assert_allclose(found.eps, expected.eps, atol=2e-5)


def test_a_classifier_adds_nothing_in_pure_noise():
    found = guidance.classifier(UNCONDITIONAL, jnp.full_like(X, jnp.nan), jnp.zeros(()), jnp.ones(()), 2.0)
    np.testing.assert_array_equal(found.x0, UNCONDITIONAL.x0)


def test_an_interval_without_an_upper_end_holds_pure_noise():
    found = guidance.limited_to_interval(3.0, jnp.asarray([1.0, 0.0]), jnp.ones(2), 0.5, np.inf)
    np.testing.assert_array_equal(found, [3.0, 3.0])


def test_what_has_no_spread_is_not_rescaled():
    one = predictions.Denoised(jnp.asarray([[1.0], [2.0]]), jnp.zeros((2, 1)))
    found = guidance.rescaled(one, one, jnp.ones((2, 1)), jnp.full(2, 0.6), jnp.full(2, 0.8), 1.0)
    np.testing.assert_array_equal(found.x0, one.x0)


def test_the_interval_holds_its_upper_end_only():
    alpha = jnp.asarray([1.0, 1.0, 1.0, 0.5, 0.0])
    sigma = jnp.asarray([0.1, 0.2, 2.0, 1.0, 1.0])
    found = guidance.limited_to_interval(3.0, alpha, sigma, 0.1, 2.0)
    np.testing.assert_array_equal(found, [1.0, 3.0, 3.0, 3.0, 1.0])


def test_rescaling_restores_the_spread_of_each_sample():
    guided = guidance.classifier_free(CONDITIONAL, UNCONDITIONAL, 6.0)
    full = guidance.rescaled(guided, CONDITIONAL, X, ALPHA, SIGMA, 1.0)
    np.testing.assert_allclose(full.x0.std(axis=1), CONDITIONAL.x0.std(axis=1), rtol=1e-5)
    np.testing.assert_allclose(ALPHA * full.x0 + SIGMA * full.eps, X, atol=1e-5)
    none = guidance.rescaled(guided, CONDITIONAL, X, ALPHA, SIGMA, 0.0)
    np.testing.assert_allclose(none.x0, guided.x0, rtol=1e-6)
    half = guidance.rescaled(guided, CONDITIONAL, X, ALPHA, SIGMA, 0.5)
    np.testing.assert_allclose(half.x0, 0.5 * (full.x0 + guided.x0), rtol=1e-5)


def test_learned_variance_comes_through():
    conditional = predictions.Denoised(CONDITIONAL.x0, CONDITIONAL.eps, X)
    np.testing.assert_array_equal(guidance.classifier_free(conditional, UNCONDITIONAL, 2.0).variance, X)


def test_dropped_labels_are_never_a_class():
    label = jnp.arange(4000) % 3
    keys = jax.random.split(jax.random.key(0), 4000)
    dropped = guidance.drop(label, keys, 0.25)
    assert guidance.NULL < 0
    np.testing.assert_array_equal(np.where(dropped == guidance.NULL, label, dropped), label)
    np.testing.assert_allclose(np.mean(dropped == guidance.NULL), 0.25, atol=0.04)
    np.testing.assert_array_equal(guidance.drop(label[5:], keys[5:], 0.25), dropped[5:])
    np.testing.assert_array_equal(guidance.drop(label, keys, 0.0), label)
    assert (guidance.drop(label, keys, 1.0) == guidance.NULL).all()
