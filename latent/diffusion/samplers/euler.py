"""Euler's method on the probability-flow ODE, with EDM's churn.

dx = x0 d alpha + eps d sigma is the ODE on every path, whatever its clock. Euler's step in it is alpha_s x0 + sigma_s
eps: the same in the variance-exploding form, in the path's own and for a rectified flow, and the same as DDIM with
eta = 0.
What this file adds is churn: noise put in before each step, and taken out by it (Karras et al. 2022, algorithm 2).
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from latent.diffusion import sampling
from latent.diffusion.schedules import Path, Real
from latent.errors import UserError


class Churn(NamedTuple):
    """Where each step starts once noise was added, [S] each: x <- scale x + noise_scale z, at these levels."""

    time: Float[Array, "S"]
    alpha: Float[Array, "S"]
    sigma: Float[Array, "S"]
    scale: Float[Array, "S"]
    noise_scale: Float[Array, "S"]


def churned(
    path: Path,
    grid: sampling.Levels,
    churn: Real,
    churn_min: Real,
    churn_max: Real,
    noise_scale: Real,
) -> Churn:
    """EDM's S_churn, S_min, S_max and S_noise, with sigma / alpha for its sigma, so that they act alike on every path.

    The level rises by the factor 1 + min(churn / S, sqrt 2 - 1) where it lies in [churn_min, churn_max], but never
    beyond the end of the path. Raises UserError for negative amounts.
    """
    for name, value in (("churn", churn), ("churn_min", churn_min), ("churn_noise", noise_scale)):
        if value < 0:
            raise UserError(f"{name}={value} must not be negative.")
    time, alpha, sigma = grid.time[:-1], grid.alpha[:-1], grid.sigma[:-1]
    if churn == 0:
        return Churn(time, alpha, sigma, jnp.ones_like(time), jnp.zeros_like(time))
    level = sigma / alpha
    top = path.sigma(jnp.ones((), time.dtype)) / path.alpha(jnp.ones((), time.dtype))
    wanted = jnp.minimum(level * (1.0 + min(churn / grid.num_steps, 2**0.5 - 1.0)), top)
    # Pure noise (an infinite level) cannot be made noisier.
    active = (level >= churn_min) & (level <= churn_max) & jnp.isfinite(level) & (wanted > level)
    raised = jnp.where(active, wanted, 1.0)
    after = jnp.where(active, path.time(-2.0 * jnp.log(raised)), time)
    alpha_after = jnp.where(active, path.alpha(after), alpha)
    added = jnp.sqrt(jnp.where(active, raised**2 - jnp.where(active, level, 0.0) ** 2, 0.0))
    return Churn(
        after,
        alpha_after,
        jnp.where(active, alpha_after * raised, sigma),
        jnp.where(active, alpha_after / alpha, 1.0),
        alpha_after * added * noise_scale,
    )


def sampler(
    path: Path,
    times: Float[Array, "T"],
    churn: Real = 0.0,
    churn_min: Real = 0.0,
    churn_max: Real = float("inf"),
    churn_noise: Real = 1.0,
) -> sampling.Sampler:
    """First order, one call a step. Without churn the times may increase too: inversion."""
    grid = sampling.levels(path, times)
    begin = churned(path, grid, churn, churn_min, churn_max, churn_noise)

    def step(denoise: sampling.DenoiseFn, x: Array, i: sampling.Index, noise: Array) -> Array:
        x = begin.scale[i] * x + begin.noise_scale[i] * noise
        estimate = denoise(x, begin.time[i])
        return grid.alpha[i + 1] * estimate.x0 + grid.sigma[i + 1] * estimate.eps

    return sampling.Sampler(init=jnp.asarray, step=step, finish=jnp.asarray, num_steps=grid.num_steps)
