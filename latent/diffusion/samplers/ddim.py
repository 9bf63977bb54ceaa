"""DDIM: from deterministic (eta = 0) to ancestral (eta = 1), on any path.

Song et al. 2021 (arXiv 2010.02502), eq. 12 and 16. With eta = 0 it is Euler's method on the probability-flow ODE
whatever the path: x0 and eps held fixed, x moves to alpha x0 + sigma eps. With eta = 1 it is DDPM with its smaller
variance, and the ancestral Euler sampler of the variance-exploding form.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from latent.diffusion import sampling
from latent.diffusion.schedules import Path, Real
from latent.errors import UserError


def sampler(path: Path, times: Float[Array, "T"], eta: Real = 0.0) -> sampling.Sampler:
    """x_s = alpha_s x0 + sqrt(sigma_s^2 - c^2) eps + c z with c = eta sigma_s sqrt(1 - SNR_t / SNR_s).

    With eta = 0 the times may also increase: that is inversion, from data to noise. Raises UserError for eta outside
    [0, 1].
    """
    if not 0.0 <= eta <= 1.0:
        raise UserError(f"eta={eta} must lie in [0, 1].")
    grid = sampling.levels(path, times)
    fresh = eta**2 * (1.0 - sampling.snr_ratio(grid)) if eta else jnp.zeros(grid.num_steps)
    kept, added = grid.sigma[1:] * jnp.sqrt(1.0 - fresh), grid.sigma[1:] * jnp.sqrt(fresh)

    def step(denoise: sampling.DenoiseFn, x: Array, i: sampling.Index, noise: Array) -> Array:
        estimate = denoise(x, grid.time[i])
        return grid.alpha[i + 1] * estimate.x0 + kept[i] * estimate.eps + added[i] * noise

    return sampling.Sampler(init=jnp.asarray, step=step, finish=jnp.asarray, num_steps=grid.num_steps)
