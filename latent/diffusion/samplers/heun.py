"""Heun's second-order method on the probability-flow ODE, with EDM's churn; for rectified flows the same method.

Karras et al. 2022 (arXiv 2206.00364), algorithms 1 and 2. In dx = x0 d alpha + eps d sigma the trapezoidal rule
averages x0 and eps of both ends of a step. It is the flow's Heun where alpha = 1 - sigma and EDM's where alpha = 1.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from latent.diffusion import sampling
from latent.diffusion.samplers import euler
from latent.diffusion.schedules import Path, Real
from latent.errors import UserError


def sampler(
    path: Path,
    times: Float[Array, "T"],
    variance_exploding: bool = False,
    churn: Real = 0.0,
    churn_min: Real = 0.0,
    churn_max: Real = float("inf"),
    churn_noise: Real = 1.0,
) -> sampling.Sampler:
    """Second order, two calls a step; a step that ends in the data is Euler's, its second call goes unused.

    With `variance_exploding` the rule acts on x / alpha against sigma / alpha, which is EDM's choice for
    variance-preserving models; without, on x itself, which keeps N(0, I) data exactly and can start in pure noise.
    Raises UserError where the variance-exploding form of the path has no beginning.
    """
    if variance_exploding and path.zero_terminal_snr:
        raise UserError("variance_exploding=True does not fit a schedule that ends in pure noise (zero terminal SNR).")
    grid = sampling.levels(path, times)
    begin = euler.churned(path, grid, churn, churn_min, churn_max, churn_noise)
    ends_in_data = grid.sigma[1:] == 0.0
    # In the variance-exploding form x / alpha moves: the weights of a change of alpha vanish.
    frame, frame_next = (begin.alpha, grid.alpha[1:]) if variance_exploding else (jnp.ones(()), jnp.ones(()))
    scale = jnp.broadcast_to(frame_next / frame, begin.alpha.shape)
    to_x0 = 0.5 * (grid.alpha[1:] - scale * begin.alpha)
    to_eps = 0.5 * (grid.sigma[1:] - scale * begin.sigma)

    def step(denoise: sampling.DenoiseFn, x: Array, i: sampling.Index, noise: Array) -> Array:
        x = begin.scale[i] * x + begin.noise_scale[i] * noise
        first = denoise(x, begin.time[i])
        guess = grid.alpha[i + 1] * first.x0 + grid.sigma[i + 1] * first.eps
        # At sigma = 0 eps has no meaning: nothing is asked there.
        second = denoise(guess, jnp.where(ends_in_data[i], begin.time[i], grid.time[i + 1]))
        better = scale[i] * x + to_x0[i] * (first.x0 + second.x0) + to_eps[i] * (first.eps + second.eps)
        return jnp.where(ends_in_data[i], guess, better)

    return sampling.Sampler(init=jnp.asarray, step=step, finish=jnp.asarray, num_steps=grid.num_steps, calls_per_step=2)
