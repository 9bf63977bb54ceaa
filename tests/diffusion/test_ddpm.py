"""Ancestral steps on every path, pure noise at the start included, against Gaussians conditioned by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent.diffusion.grids import GRIDS
from latent.diffusion.predictions import Denoised
from latent.diffusion.samplers import ddpm
from tests.diffusion import exact
from tests.harness import thinned

PATHS = exact.every_path()
each_path = pytest.mark.parametrize("name", thinned(PATHS, {"linear", "rectified_flow", "edm"}))


def levels(path, times):
    """alpha and sigma, each [T]."""
    return jax.device_get(jax.jit(lambda t: (path.alpha(t), path.sigma(t)))(times))


def every_step(sampler, x0, eps, noise):
    """Where each step leads by itself, [S]: its denoiser says x0 and eps, of numbers; to a DDPM x is no more than
    these."""
    say = lambda x0, eps: lambda x, t: Denoised(x0[None], eps[None])  # noqa: E731
    one = lambda i, x0, eps: sampler.step(say(x0, eps), x0[None], i, jnp.full(1, noise))[0]  # noqa: E731
    told = (np.broadcast_to(np.asarray(each), sampler.num_steps) for each in (x0, eps))
    return np.asarray(jax.jit(jax.vmap(one))(np.arange(sampler.num_steps), *told))


@each_path
def test_a_step_draws_the_posterior_of_the_forward_process(name):
    """q(x_s | x_t, x0) by Bayes from x_s given x0 and x_t given x_s: precisions add up, whatever alpha and sigma do."""
    path, x0, eps = PATHS[name], 0.7, -1.3
    with jax.enable_x64(True):
        times = GRIDS["trailing"](path, 5)
        alpha, sigma = levels(path, times)
        carried = alpha[:-2] / alpha[1:-1]
        added = sigma[:-2] ** 2 - (carried * sigma[1:-1]) ** 2
        precision = 1 / sigma[1:-1] ** 2 + carried**2 / added
        x = alpha[:-2] * x0 + sigma[:-2] * eps
        mean = (alpha[1:-1] * x0 / sigma[1:-1] ** 2 + carried * x / added) / precision
        low, high = (every_step(ddpm.sampler(path, times), x0, eps, noise) for noise in (0.0, 1.0))
    np.testing.assert_allclose(low[:-1], mean, rtol=1e-6)
    np.testing.assert_allclose((high - low)[:-1], precision**-0.5, rtol=1e-6)
    assert low[-1] == high[-1] == pytest.approx(x0)  # the last step gives the mean


def variances(path, times, spread, variance):
    """The variance of x before each step but the last, for data N(0, spread^2) and their exact denoiser; as it is
    with this sampler, and as it should be."""
    (alpha, sigma), sampler = levels(path, times), ddpm.sampler(path, times, variance)
    total = ((alpha * spread) ** 2 + sigma**2)[:-1]
    # Linear in x: what 1 becomes, and what noise adds to 0.
    kept = every_step(sampler, alpha[:-1] * spread**2 / total, sigma[:-1] / total, 0.0)
    added = every_step(sampler, 0.0, 0.0, 1.0)
    found = [total[0]]
    for i in range(len(times) - 2):
        found.append(kept[i] ** 2 * found[-1] + added[i] ** 2)
    return np.array(found), total


@each_path
def test_each_variance_is_exact_for_its_own_data_in_any_number_of_steps(name):
    for variance, spread in (("fixed_small", 0.0), ("fixed_large", 1.0)):
        with jax.enable_x64(True):
            times = GRIDS["trailing"](PATHS[name], 4)
            np.testing.assert_allclose(*variances(PATHS[name], times, spread, variance), rtol=1e-6, err_msg=variance)


@pytest.mark.parametrize("name", ["rectified_flow", "rectified_flow_shifted", "continuous_cosine", "edm"])
def test_other_data_are_reached_as_steps_are_added(name):
    """Of any spread, from the noise at the start to nearly the data; the error falls as 1 / steps."""
    for spread in (0.3, 2.0):
        errors = []
        for steps in (40, 80):
            with jax.enable_x64(True):
                times = jnp.append(jnp.linspace(1.0, 0.2, steps + 1), 0.0)
                found, exactly = variances(PATHS[name], times, spread, "fixed_small")
            errors.append(abs(found[-1] / exactly[-1] - 1))
        assert errors[1] < 0.2 and 1.7 < errors[0] / errors[1] < 2.4, (spread, errors)
