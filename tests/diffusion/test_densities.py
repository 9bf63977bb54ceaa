"""Likelihoods of a family against known densities: of vectors, of pixels, and of latents by their name."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent import rng
from latent.diffusion import densities, paths, predictions, schedules, spaces
from latent.diffusion.denoiser import Denoiser, Guides
from latent.diffusion.generation import Generator
from latent.diffusion.predictions import PREDICTIONS
from latent.types import DataSpec
from tests.diffusion import exact

PATH = schedules.linear()
DEFAULTS = {"sampler": "ddim", "steps": 5, "grid": "trailing", "guidance": 3.0, "options": {}} | {
    "guidance_interval": (), "guidance_rescale": 0.5, "autoguidance": 1.0, "classifier_scale": 0.0
}  # fmt: skip


class ExactNet:
    """The denoiser of a mixture, or of N(0, 0.3^2 I), that predicts v; it would cheat if it were told anything else."""

    def __init__(self, mixture=None):
        self.mixture = mixture

    def apply(self, variables, x, t, condition, previous):
        assert previous is None
        alpha, sigma = PATH.alpha(t[0]), PATH.sigma(t[0])
        if self.mixture is not None:
            found = exact.denoise(self.mixture, x, alpha, sigma)
        else:
            spread = (0.3 * alpha) ** 2 + sigma**2
            found = predictions.Denoised(0.09 * alpha * x / spread, sigma * x / spread)
        return predictions.target(PREDICTIONS["v"], found.x0, found.eps, alpha, sigma)


def generator(net, shape, support):
    denoiser = Denoiser(net, paths.fixed(PATH), PREDICTIONS["v"], True, True, False)  # conditional and self-conditioned
    spec = DataSpec("toy", shape, 3, 64, np.zeros(shape, np.float32), support)
    return Generator(denoiser, Guides(), spaces.pixels(spec), 3, DEFAULTS)


def bits(name, net, x, support, **options):
    chosen = generator(net, x.shape[1:], support)
    function = densities.likelihoods(chosen, support, False)[name]
    batch = {"x": jnp.asarray(x, jnp.float32), "label": jnp.zeros(len(x), jnp.int32)}
    return np.asarray(function({"denoiser": {}}, {}, batch, rng.sample_keys(0, jnp.arange(len(x))), **options))


@pytest.mark.slow
def test_vectors_have_their_exact_density_by_the_ode_and_more_bits_by_the_bound():
    x = exact.draw(exact.MIXTURE, 40)
    expected = -np.asarray(exact.log_density(exact.MIXTURE, jnp.asarray(x, jnp.float32))) / 2 / math.log(2)
    found = bits("ode", ExactNet(exact.MIXTURE), x, "real", steps=200, divergence="exact")
    np.testing.assert_allclose(found, expected, atol=0.05)
    estimated = bits("ode", ExactNet(exact.MIXTURE), x, "real", steps=200)
    assert estimated.mean() == pytest.approx(expected.mean(), abs=0.1)
    bound = bits("vlb", ExactNet(exact.MIXTURE), x, "real", steps=400, grid="log_snr")
    assert expected.mean() - 0.1 < bound.mean() < expected.mean() + 0.3
    # Steps of equal length in t spend few where the noise is small: a looser bound, but still one.
    assert bits("vlb", ExactNet(exact.MIXTURE), x, "real", steps=400).mean() > expected.mean() + 0.3


@pytest.mark.slow
def test_pixels_have_the_bits_of_their_levels():
    """N(0, 0.3^2) on [-1, 1]: the bits of 256 levels are those of the density plus log2 of the levels in it."""
    z = 0.3 * np.random.default_rng(0).normal(size=(400, 2, 2, 1)).clip(-3, 3)
    x = np.round(255 * (z + 1) / 2) / 255
    expected = np.mean((z / 0.3) ** 2) / 2 / math.log(2) + math.log2(0.3 * math.sqrt(2 * math.pi)) - math.log2(2 / 256)
    found = bits("ode", ExactNet(), x, "unit", steps=100, divergence="exact")
    assert found.mean() == pytest.approx(expected, abs=0.03)
    dequantised = (255 * x + np.random.default_rng(1).uniform(size=x.shape)) / 256
    again = bits("ode", ExactNet(), dequantised, "unit", steps=100, divergence="exact", quantised=False)
    assert again.mean() == pytest.approx(found.mean(), abs=0.02)
    bound = bits("vlb", ExactNet(), x, "unit", steps=400, grid="log_snr")
    assert expected - 0.03 < bound.mean() < expected + 0.25
    assert bits("vlb", ExactNet(), dequantised, "unit", steps=400, quantised=False).mean() > expected - 0.03


def test_a_dequantised_pixel_fills_its_level():
    batch = {"x": jnp.stack([jnp.zeros((20, 20, 1)), jnp.ones((20, 20, 1))]), "label": jnp.zeros(2, jnp.int32)}
    chosen = generator(ExactNet(), (20, 20, 1), "unit")
    low, high = densities._begin(chosen, True)({}, {}, batch, rng.sample_keys(0, jnp.arange(2)))[0]
    for pixel, floor in ((low, -1.0), (high, 1.0 - 2 / 256)):
        assert floor <= pixel.min() < floor + 2e-4 and floor + 2 / 256 - 2e-4 < pixel.max() <= floor + 2 / 256


def test_latents_never_share_a_name_with_pixels_and_binary_data_have_none():
    chosen = generator(ExactNet(), (2, 2, 1), "unit")
    names = {
        case: set(densities.likelihoods(chosen, *case))
        for case in (("unit", False), ("unit", True), ("binary", False), ("binary", True))
    }
    assert names["unit", False] == {"vlb", "ode"} and names["binary", False] == set()
    assert names["unit", True] == names["binary", True] == {"latent_vlb", "latent_ode"}


def test_an_examples_bits_are_its_own():
    x = exact.draw(exact.MIXTURE, 6)
    chosen = generator(ExactNet(exact.MIXTURE), (2,), "real")
    function = densities.likelihoods(chosen, "real", False)["vlb"]
    keys = rng.sample_keys(0, jnp.arange(6))

    def ask(rows):
        batch = {"x": jnp.asarray(x[rows], jnp.float32), "label": jnp.zeros(len(x[rows]), jnp.int32)}
        return function({"denoiser": {}}, {}, batch, keys[rows], steps=20)

    np.testing.assert_allclose(ask(slice(2, 5)), ask(slice(0, 6))[2:5], rtol=1e-4)
    assert jax.numpy.isfinite(ask(slice(0, 6))).all()
