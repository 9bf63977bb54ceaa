"""Inversion of generators whose inverse is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from latent.adversarial.inversion import Inversion, invert

KEYS = jax.random.split(jax.random.key(0), 20)
X = jnp.float32(np.random.default_rng(0).normal(size=(20, 3)))
MIXING = jnp.float32([[2.0, 0.3, 0.0], [0.0, 1.0, -0.4], [0.2, 0.0, 0.7]])


def search(generate, x=X, keys=KEYS, **changes):
    settings = Inversion(**{"steps": 60, "restarts": 2, "learning_rate": 0.2} | changes)
    return jax.jit(lambda images, k: invert(generate, images, k, 3, settings))(x, keys)


def test_a_linear_generator_is_inverted():
    found = search(lambda z: z @ MIXING, steps=300, learning_rate=0.05)
    np.testing.assert_allclose(found.mean, X @ jnp.linalg.inv(MIXING), atol=2e-2)
    assert found.info["squared_error"].shape == (20,) and float(found.info["squared_error"].max()) < 1e-4


def test_restarts_escape_local_minima():
    """A wave in every coordinate: most starts end in a wrong valley."""
    wave = lambda z: 0.5 * z + jnp.sin(4.0 * z)  # noqa: E731
    one, many = (search(wave, restarts=count).info["squared_error"] for count in (1, 16))
    assert float(many.mean()) < 0.3 * float(one.mean())


def test_the_error_told_is_that_of_the_code():
    wave = lambda z: 0.5 * z + jnp.sin(4.0 * z)  # noqa: E731
    found = search(wave, steps=5)
    np.testing.assert_allclose(found.info["squared_error"], np.mean((wave(found.mean) - X) ** 2, axis=1), rtol=1e-4)


def test_an_image_is_inverted_alone():
    whole, part = search(jnp.tanh, steps=10), search(jnp.tanh, X[4:6], KEYS[4:6], steps=10)
    np.testing.assert_allclose(whole.mean[4:6], part.mean, atol=1e-5)
