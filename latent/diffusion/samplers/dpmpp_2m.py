"""DPM-Solver++(2M): second order, one call a step, from the previous step's x0; and its stochastic form.

Lu et al. 2022 (arXiv 2211.01095), algorithm 2, and section 5 for the SDE. The clock is half the log-SNR, in which all
but the denoiser is integrated exactly; h is its growth in a step.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from latent.diffusion import sampling
from latent.diffusion.schedules import Path, Real

FEW_STEPS = 15
"""Below this the last step is first order by default, as the paper's code does for stability."""


def extrapolation(grid: sampling.Levels, lower_order_final: bool) -> Float[Array, "S"]:
    """h / (2 h_previous): the weight of the change in x0 since the previous step; 0 where only first order is possible.

    That is: in the first step, after a step from pure noise, and in a step that ends in the data (h infinite), where
    first order is exact for x0 held fixed. `lower_order_final` asks for 0 in the last step whatever its end.
    """
    growth = 0.5 * jnp.diff(grid.log_snr)
    weight = growth[1:] / (2.0 * growth[:-1])
    weight = jnp.concatenate([jnp.zeros((1,), weight.dtype), jnp.where(jnp.isfinite(growth[1:]), weight, 0.0)])
    return weight.at[-1].set(0.0) if lower_order_final else weight


def multistep(path: Path, times: Float[Array, "T"], eta: Real, lower_order_final: bool | None) -> sampling.Sampler:
    """eta = 0: the ODE; eta = 1: the reverse SDE; between them a mixture, as in DDIM."""
    grid = sampling.levels(path, times)
    growth = 0.5 * jnp.diff(grid.log_snr)
    final = grid.num_steps < FEW_STEPS if lower_order_final is None else lower_order_final
    weight = extrapolation(grid, final)
    decay = jnp.exp(-eta * growth) if eta else jnp.ones_like(growth)
    kept = grid.sigma[1:] / grid.sigma[:-1] * decay
    to_x0 = -grid.alpha[1:] * jnp.expm1(-(1.0 + eta) * growth)
    added = grid.sigma[1:] * jnp.sqrt(-jnp.expm1(-2.0 * eta * growth)) if eta else jnp.zeros_like(growth)

    def step(
        denoise: sampling.DenoiseFn, carry: tuple[Array, Array], i: sampling.Index, noise: Array
    ) -> tuple[Array, Array]:
        x, previous = carry
        x0 = denoise(x, grid.time[i]).x0
        extrapolated = x0 + weight[i] * (x0 - previous)
        return kept[i] * x + to_x0[i] * extrapolated + added[i] * noise, x0

    return sampling.Sampler(
        init=lambda x: (x, jnp.zeros_like(x)), step=step, finish=lambda carry: carry[0], num_steps=grid.num_steps
    )


def sampler(path: Path, times: Float[Array, "T"], lower_order_final: bool | None = None) -> sampling.Sampler:
    """Deterministic. `lower_order_final` None: where there are fewer than 15 steps."""
    return multistep(path, times, 0.0, lower_order_final)
