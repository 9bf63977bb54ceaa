"""Edits against the exact denoiser of a Gaussian mixture and its closed-form flow."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent import config, rng
from latent.diffusion import editing, sampling, schedules
from latent.diffusion.grids import GRIDS
from latent.errors import UserError
from tests.diffusion import exact
from tests.harness import thinned

PATH = schedules.continuous_linear()
BUILD = {name: config.select("latent.diffusion.samplers", name, "sampler", "sampler") for name in editing.MEMORYLESS}
X = exact.draw(exact.MIXTURE, 6)


def test_every_memoryless_sampler_carries_x_alone_and_the_others_do_not():
    grid = GRIDS["linear"](PATH, 4)
    for name in config.names("latent.diffusion.samplers"):
        made = config.select("latent.diffusion.samplers", name, "sampler", "sampler")(PATH, grid)
        carry = made.init(jnp.asarray(X))
        assert isinstance(carry, jax.Array) == (name in editing.MEMORYLESS)
        np.testing.assert_array_equal(jax.tree.leaves(carry)[0], jnp.asarray(X))


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("euler", 1), ("heun", 2)])
def test_inversion_and_back_is_the_identity_to_the_samplers_order(name, order):
    errors = []
    with jax.enable_x64(True):
        x = jnp.asarray(X)
        for steps in (40, 80):
            times = GRIDS["log_snr"](PATH, steps, end=0.05)
            noise = exact.walk(editing.upward(BUILD[name], PATH, times), exact.denoiser(exact.MIXTURE, PATH), x)[-1]
            back = editing.downward(BUILD[name], PATH, times)
            found = exact.walk(back, exact.denoiser(exact.MIXTURE, PATH), jnp.asarray(noise))[-1]
            errors.append(np.abs(found - X).max())
    # There and back some of the error cancels: the order is a floor.
    assert np.log2(errors[0] / errors[1]) > order - 0.35 and errors[1] < 0.2, errors


def test_inversion_is_the_exact_flow_of_a_gaussian():
    with jax.enable_x64(True):
        x = jnp.asarray(exact.draw(exact.GAUSSIAN, 5))
        times = GRIDS["log_snr"](PATH, 160, end=0.02)
        found = exact.walk(editing.upward(BUILD["heun"], PATH, times), exact.denoiser(exact.GAUSSIAN, PATH), x)[-1]
        ends = [(float(PATH.alpha(t)), float(PATH.sigma(t))) for t in (times[-2], times[0])]
        np.testing.assert_allclose(found, exact.flow_map(exact.GAUSSIAN, ends[0][0] * x, *ends), atol=2e-3)


def test_strength_chooses_the_steps():
    times = GRIDS["trailing"](PATH, 10)
    np.testing.assert_array_equal(editing.remaining(times, 0.0), times[-1:])
    np.testing.assert_array_equal(editing.remaining(times, 1.0), times)
    np.testing.assert_array_equal(editing.remaining(times, 0.3), times[7:])
    for strength in (-0.1, 1.1):
        with pytest.raises(UserError, match="--strength"):
            editing.remaining(times, strength)


@functools.cache
def fill(name, resamplings, steps=12):
    times = GRIDS["trailing"](PATH, steps)
    walk = editing.inpainted(BUILD[name](PATH, times), PATH, times, resamplings)
    return sampling.runner(walk, lambda inputs, x, t: exact.denoise(exact.MIXTURE, x, PATH.alpha(t), PATH.sigma(t)))


def filled(name, resamplings, known, mask, steps=12):
    keys = rng.sample_keys(0, jnp.arange(len(known)))
    start = sampling.start(keys, (3, *known.shape[1:]))
    known = jnp.asarray(known, jnp.float32)
    return fill(name, resamplings, steps)((), (start, known, jnp.broadcast_to(jnp.float32(mask), known.shape)), keys)


@pytest.mark.parametrize("name", thinned(editing.MEMORYLESS, {"ddpm", "heun"}))
def test_what_the_mask_keeps_is_kept_exactly_and_no_mask_is_plain_sampling(name):
    np.testing.assert_array_equal(filled(name, 2, X, [1.0, 1.0]), X.astype(np.float32))
    np.testing.assert_array_equal(filled(name, 2, X, [1.0, 0.0])[:, 0], X[:, 0].astype(np.float32))
    found = filled(name, 1, X, [0.0, 0.0])
    np.testing.assert_allclose(found, filled(name, 1, X + 5.0, [0.0, 0.0]), atol=1e-6)
    assert np.abs(found - X).max() > 0.1


def test_a_step_draws_three_noises_of_its_own():
    """The sampler's, the known part's and the one that undoes the step; here the sampler's sample is its noise."""
    times = jnp.asarray([0.8, 0.5, 0.0])
    walk = editing.inpainted(
        sampling.Sampler(jnp.asarray, lambda denoise, x, i, noise: noise, jnp.asarray, 2), PATH, times, 2
    )
    noise, known = jax.random.normal(jax.random.key(0), (2, 3, 4)), jnp.ones((2, 4))
    for j, undone in ((0, True), (1, False)):
        found = walk.step(
            exact.denoiser(exact.MIXTURE, PATH), (jnp.zeros((2, 4)), known, jnp.full((2, 4), 0.25)), j, noise
        )[0]
        (a, b), (c, d) = ((path(times[0]), path(times[1])) for path in (PATH.alpha, PATH.sigma))
        expected = 0.25 * (b * known + d * noise[:, 1]) + 0.75 * noise[:, 0]
        if undone:
            expected = a / b * expected + jnp.sqrt(c**2 - (a / b * d) ** 2) * noise[:, 2]
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_the_open_part_follows_the_conditional_law():
    """Of a Gaussian with correlated coordinates, given the first: mean and spread of the second by its formula."""
    mean, cov = exact.GAUSSIAN.means[0][:2], np.array([[1.0, 0.8], [0.8, 1.0]])
    pair = exact.Mixture(np.ones(1), mean[None], cov[None])
    times = GRIDS["trailing"](PATH, 120)
    walk = editing.inpainted(BUILD["ddpm"](PATH, times), PATH, times, 10)
    run = sampling.runner(walk, lambda inputs, x, t: exact.denoise(pair, x, PATH.alpha(t), PATH.sigma(t)))
    size = 1500
    known = jnp.broadcast_to(jnp.float32(mean + np.array([1.5, 0.0])), (size, 2))
    keys = rng.sample_keys(0, jnp.arange(size))
    start = (sampling.start(keys, (3, 2)), known, jnp.broadcast_to(jnp.asarray([1.0, 0.0]), (size, 2)))
    found = np.asarray(run((), start, keys))[:, 1]
    assert found.mean() == pytest.approx(mean[1] + 0.8 * 1.5, abs=0.12)
    assert found.std() == pytest.approx(0.6, abs=0.1)


def test_masks_of_latents_keep_whole_squares_only():
    mask = np.ones((1, 4, 4, 1), np.float32)
    mask[0, 0, 3] = 0.0
    found = editing.mask_of_latents(jnp.asarray(mask), (2, 2, 5))
    np.testing.assert_array_equal(found[0, :, :, 0], [[1.0, 0.0], [1.0, 1.0]])
    with pytest.raises(UserError, match="needs spatial latents"):
        editing.mask_of_latents(jnp.asarray(mask), (16,))
    with pytest.raises(UserError, match="do not divide"):
        editing.mask_of_latents(jnp.asarray(mask), (3, 3, 4))
