"""Guidance as users ask for it, on exact denoisers: each push alone, all together, only in its interval; and the loss
of a learned variance against reference values."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent.diffusion import guidance, learned_variance, paths, predictions, schedules
from latent.diffusion.denoiser import Denoiser, Guidance, Guides, check, guided
from latent.diffusion.predictions import PREDICTIONS
from latent.errors import UserError
from latent.types import Condition
from tests.diffusion import exact

PATH = schedules.linear()
X = jnp.asarray(exact.draw(exact.MIXTURE, 5), jnp.float32)
T = jnp.asarray(0.3)
LABEL = jnp.asarray([0, 1, 2, 1, 0])
WIDE = exact.MIXTURE._replace(covs=4.0 * exact.MIXTURE.covs)


class ExactNet:
    """The denoiser of a mixture as a net that predicts v; a label picks one component, -1 none."""

    def __init__(self, mixture):
        self.mixture = mixture

    def apply(self, variables, x, t, condition, previous):
        alpha, sigma = PATH.alpha(t)[0], PATH.sigma(t)[0]
        logs, solved, pulled = exact.components(self.mixture, x, alpha, sigma)
        share = jax.nn.softmax(logs, axis=1)
        if condition.label is not None:
            share = jnp.where(condition.label[:, None] < 0, share, jax.nn.one_hot(condition.label, logs.shape[1]))
        each = jnp.asarray(self.mixture.means, x.dtype) + alpha * pulled
        x0, eps = (jnp.einsum("nk,nki->ni", share, values) for values in (each, sigma * solved))
        return predictions.target(PREDICTIONS["v"], x0, eps, alpha, sigma)


def exact_denoiser(mixture):
    return Denoiser(ExactNet(mixture), paths.fixed(PATH), PREDICTIONS["v"], True, False, False)


def log_prob(params, extra, z, label):
    return -jnp.sum((z - jnp.asarray([1.0, -2.0])) ** 2, axis=1) * (1 + label)


STRONG = exact_denoiser(exact.MIXTURE)
GUIDES = Guides(exact_denoiser(WIDE), log_prob)
PARAMS = {"denoiser": {}, "weak": {"denoiser": {}}}


@functools.cache
def ask(**options):
    estimate = guided(STRONG, GUIDES, Guidance(**options))
    return jax.device_get(jax.jit(lambda x: estimate((PARAMS, {}, Condition(LABEL)), x, T))(X))


def alone(denoiser, label):
    return jax.device_get(jax.jit(lambda: denoiser(PATH, {}, X, jnp.full(5, T), Condition(label)))())


def test_the_defaults_are_the_conditional_denoiser():
    np.testing.assert_array_equal(ask().x0, alone(STRONG, LABEL).x0)


def test_every_push_is_from_its_own_reference_and_they_add_up():
    conditional, free = alone(STRONG, LABEL), alone(STRONG, jnp.full(5, guidance.NULL))
    weak = alone(GUIDES.weak, LABEL)
    alpha, sigma = jax.device_get((PATH.alpha(T), PATH.sigma(T)))
    clean = lambda x: STRONG(PATH, {}, x, jnp.full(5, T), Condition(LABEL)).x0  # noqa: E731
    gradient = jax.device_get(jax.jit(jax.grad(lambda x: log_prob({}, {}, clean(x), LABEL).sum()))(X))
    pushes = {
        "classifier_free": (3.0, 2.0 * (conditional.x0 - free.x0)),
        "autoguidance": (1.5, 0.5 * (conditional.x0 - weak.x0)),
        "classifier": (0.25, 0.25 * sigma**2 / alpha * gradient),
    }
    for name, (scale, push) in pushes.items():
        assert np.abs(push).max() > 0.01
        np.testing.assert_allclose(ask(**{name: scale}).x0, conditional.x0 + push, atol=1e-4)
    together = ask(**{name: scale for name, (scale, _) in pushes.items()})
    np.testing.assert_allclose(together.x0, conditional.x0 + sum(push for _, push in pushes.values()), atol=1e-4)
    np.testing.assert_allclose(alpha * together.x0 + sigma * together.eps, X, atol=1e-4)
    np.testing.assert_allclose(ask(classifier_free=0.0).x0, free.x0, atol=1e-5)


def test_at_guidance_0_nothing_that_is_pushed_with_is_told_the_label():
    """Autoguidance is then between two unconditional models; a classifier judges what the unconditional one makes."""
    untold = jnp.full(5, guidance.NULL)
    strong, weak = (jax.device_put(alone(each, untold)) for each in (STRONG, GUIDES.weak))
    np.testing.assert_allclose(ask(classifier_free=0.0).x0, strong.x0, atol=1e-6)
    pushed = guidance.autoguidance(strong, weak, 2.0)
    np.testing.assert_allclose(ask(classifier_free=0.0, autoguidance=2.0).x0, pushed.x0, atol=1e-5)
    clean = lambda y: STRONG(PATH, {}, y, jnp.full(5, T), Condition(untold)).x0  # noqa: E731
    wanted = lambda y: log_prob({}, {}, clean(y), LABEL)  # noqa: E731
    gradient = jax.jit(lambda y: guidance.classifier_gradient(wanted, y))(X)
    judged = guidance.classifier(strong, gradient, PATH.alpha(T), PATH.sigma(T), 1.0)
    np.testing.assert_allclose(ask(classifier_free=0.0, classifier=1.0).x0, judged.x0, atol=1e-5)


def test_outside_its_interval_guidance_does_nothing():
    level = float(PATH.sigma(T) / PATH.alpha(T))
    scales = {"classifier_free": 3.0, "autoguidance": 1.5, "classifier": 0.25}
    inside, outside = ask(**scales, interval=(0.0, 1.01 * level)), ask(**scales, interval=(0.0, 0.99 * level))
    np.testing.assert_allclose(inside.x0, ask(**scales).x0, atol=1e-5)
    np.testing.assert_allclose(outside.x0, ask().x0, atol=1e-5)
    np.testing.assert_allclose(ask(classifier_free=0.0, interval=(0.0, 0.99 * level)).x0, ask().x0, atol=1e-5)


def test_rescaling_gives_back_the_conditional_spread():
    spread = lambda estimate: np.std(estimate.x0, axis=1)  # noqa: E731
    found = ask(classifier_free=4.0, rescale=1.0)
    np.testing.assert_allclose(spread(found), spread(ask()), rtol=1e-3)
    assert np.abs(spread(ask(classifier_free=4.0)) / spread(ask()) - 1).max() > 0.1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"autoguidance": 2.0}, "--autoguidance=2.0 .*model.weak"),
        ({"classifier": 1.0}, "--classifier_scale=1.0 .*model.classifier"),
        ({"interval": (2.0, 1.0)}, "--guidance_interval=2,1 "),
        ({"interval": (1.0,)}, "--guidance_interval=1 "),
        ({"rescale": 1.5}, "--guidance_rescale=1.5 "),
    ],
)
def test_what_cannot_be_given_names_its_flag(options, words):
    with pytest.raises(UserError, match=words):
        check(Guidance(**options), STRONG, Guides())


def test_bits_of_a_step_equal_guided_diffusion():
    values = exact.SCHEDULE_VALUES
    with jax.enable_x64(True):
        rows = np.flatnonzero(values["gd__t"] > 0)
        t = jnp.asarray((values["gd__t"][rows] + 1) / 1000)
        x0, x = jnp.asarray(values["gd__x0"][rows]), jnp.asarray(values["gd__x_t"][rows])
        alpha, sigma = PATH.alpha(t), PATH.sigma(t)
        eps = (x - schedules.expand(alpha, x) * x0) / schedules.expand(sigma, x)
        output, share = jnp.split(jnp.asarray(values["gd__model_output"][rows]), 2, axis=1)
        estimate = predictions.denoised(PREDICTIONS["eps"], output, x, alpha, sigma, share)
        found = learned_variance.step_bits(PATH, x0, eps, estimate, t)
        np.testing.assert_allclose(found, values["gd__vb_bpd"][rows], rtol=1e-6)


def test_a_learned_variance_is_trained_and_the_mean_is_not():
    t = jnp.asarray([1e-3, 0.01, 0.2])
    x0, eps = jnp.ones((3, 2)), 0.5 * jnp.ones((3, 2))

    def bits(guess, share):
        estimate = predictions.Denoised(guess, eps, share)
        return learned_variance.step_bits(PATH, x0, eps, estimate, t)

    np.testing.assert_allclose(bits(x0, -jnp.ones((3, 2))), 0.0, atol=1e-5)  # right mean, posterior's own variance
    assert (bits(x0, jnp.zeros((3, 2)))[1:] > 2e-6).all()
    to_mean, to_variance = jax.grad(lambda *given: bits(*given).sum(), argnums=(0, 1))(0.5 * x0, jnp.zeros((3, 2)))
    assert (np.asarray(to_mean) == 0).all()
    assert (np.asarray(to_variance)[0] == 0).all() and (np.abs(to_variance[1]) > 0).all()
    assert np.isfinite(to_variance).all()
