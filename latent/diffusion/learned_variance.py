"""The learned variance of reverse steps and the loss that trains it (Nichol & Dhariwal 2021, arXiv 2102.09672)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent.diffusion import likelihood
from latent.diffusion.predictions import Denoised
from latent.diffusion.samplers.ddpm import log_variance_bounds
from latent.diffusion.schedules import Path, expand


def step_bits(
    path: Path,
    x0: Float[Array, "B ..."],
    eps: Float[Array, "B ..."],
    estimate: Denoised,
    t: Float[Array, "B"],
) -> Float[Array, "B"]:
    """KL(q(x_s | x_t, x0) || p(x_s | x_t)) of the table's step from t to s = t - 1 / T, bits per dimension.

    x_t = alpha x0 + sigma eps. The gradient reaches the variance alone (section 3.4: the mean is trained by the simple
    loss). The step into the data is 0: samplers return its mean, so it has no variance to learn.
    """
    s = t - 1.0 / path.num_timesteps
    into_data = s < 0.5 / path.num_timesteps
    s = jnp.where(into_data, t, s)  # any other time of the table: the value is thrown away
    t = jnp.where(into_data, t + 1.0 / path.num_timesteps, t)
    kept = path.sigma(s) * jnp.exp(0.5 * (path.log_snr(t) - path.log_snr(s)))
    small, large = log_variance_bounds(path.alpha(s), path.sigma(s), path.log_snr(t), path.log_snr(s))
    mean = lambda data, noise: expand(path.alpha(s), data) * data + expand(kept, noise) * noise  # noqa: E731
    share = 0.5 * (estimate.variance + 1.0)
    small, large = expand(small, share), expand(large, share)
    guess = jax.lax.stop_gradient(mean(estimate.x0, estimate.eps))
    kl = likelihood.normal_kl(mean(x0, eps), small, guess, share * large + (1.0 - share) * small)
    return jnp.where(into_data, 0.0, kl.reshape(len(kl), -1).mean(axis=1) / math.log(2.0))
