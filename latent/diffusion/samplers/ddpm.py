"""DDPM's ancestral sampler over any grid of any path, with fixed or learned variance.

Ho et al. 2020 (arXiv 2006.11239), eqs. 6-7 and 11, for steps from t to any s < t (Kingma et al. 2021, appendix A):
q(x_s | x_t, x0) has mean alpha_s x0 + sigma_s sqrt(r) eps and variance sigma_s^2 (1 - r), r = SNR_t / SNR_s.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax.nn import log_sigmoid
from jaxtyping import Array, Float

from latent.diffusion import sampling
from latent.diffusion.predictions import Denoised
from latent.diffusion.schedules import Path
from latent.errors import UserError, unknown_name

VARIANCES = ("fixed_small", "fixed_large", "learned")


def log_variance_bounds(
    alpha_s: Array, sigma_s: Array, log_snr_t: Array, log_snr_s: Array
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """(fixed small, fixed large) log-variance of the step t -> s: that of p(x_s | x_t) for data at one point, and for
    N(0, I) data.

    sigma_s^2 (1 - r) and (alpha_s^2 + sigma_s^2) (1 - r) sigma_t^2 / (alpha_t^2 + sigma_t^2): beta-tilde and beta of
    the DDPM papers where paths preserve variance. Elsewhere the second is not that of q(x_t | x_s), sigma_t^2 (1 - r),
    with which N(0, I) data would come out with another spread. The small one is -inf where s is the data.
    """
    lost = jnp.log(-jnp.expm1(log_snr_t - log_snr_s))
    return 2.0 * jnp.log(sigma_s) + lost, 2.0 * jnp.log(jnp.hypot(alpha_s, sigma_s)) + log_sigmoid(-log_snr_t) + lost


def sampler(path: Path, times: Float[Array, "T"], variance: str = "fixed_small") -> sampling.Sampler:
    """`variance`: "fixed_small" (right for data at one point), "fixed_large" (for N(0, I) data), or "learned", between
    the two by `Denoised.variance` in [-1, 1] (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 15).

    The step that ends in the data returns its mean, x0. Raises UserError for a wrong name.
    """
    if variance not in VARIANCES:
        raise unknown_name("variance", variance, VARIANCES)
    grid = sampling.levels(path, times)
    kept = grid.sigma[1:] * jnp.sqrt(sampling.snr_ratio(grid))
    small, large = log_variance_bounds(grid.alpha[1:], grid.sigma[1:], grid.log_snr[:-1], grid.log_snr[1:])
    into_data = grid.sigma[1:] == 0.0
    small = jnp.where(into_data, large, small)

    def deviation(estimate: Denoised, i: sampling.Index) -> Array:
        if variance == "fixed_small":
            return jnp.exp(0.5 * small[i])
        if variance == "fixed_large":
            return jnp.exp(0.5 * large[i])
        if estimate.variance is None:
            raise UserError("variance='learned' needs a net that learns it: this one returns no variance.")
        share = 0.5 * (estimate.variance + 1.0)
        return jnp.exp(0.5 * (share * large[i] + (1.0 - share) * small[i]))

    def step(denoise: sampling.DenoiseFn, x: Array, i: sampling.Index, noise: Array) -> Array:
        estimate = denoise(x, grid.time[i])
        mean = grid.alpha[i + 1] * estimate.x0 + kept[i] * estimate.eps
        return mean + jnp.where(into_data[i], 0.0, deviation(estimate, i)) * noise

    return sampling.Sampler(init=jnp.asarray, step=step, finish=jnp.asarray, num_steps=grid.num_steps)
