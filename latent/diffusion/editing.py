"""Edits of given examples, as samplers: inversion and back, noising half-way, keeping a known part.

All of it is functions of arrays in the space that is diffused in; what walks is any sampler of `samplers/` that keeps
nothing but x between its steps. A grid's last time is 0, the data, where a denoiser can be asked nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from latent.diffusion import sampling
from latent.diffusion.schedules import Path, Real
from latent.errors import UserError

Make = Callable[[Path, Array], sampling.Sampler]
"""(path, times) -> sampler."""

DETERMINISTIC = ("ddim", "euler", "heun")
"""Samplers that follow the probability-flow ODE step by step, so that they can also follow it backwards."""

MEMORYLESS = (*DETERMINISTIC, "ddpm")
"""Samplers whose carry is x: what lies in it may be replaced between two steps."""


def upward(make: Make, path: Path, times: Float[Array, "T"]) -> sampling.Sampler:
    """From data to the noise that leads to it: DDIM inversion (Song et al. 2021, arXiv 2010.02502, section 4.3).

    `times` is a sampling grid, walked backwards. Its sampler starts at alpha x at the last time before 0, which takes
    the little noise that belongs there for none, as `likelihood.ode` does.
    """
    inner = make(path, jnp.flip(times[:-1]))
    return inner._replace(init=lambda x: inner.init(path.alpha(times[-2]) * x))


def downward(make: Make, path: Path, times: Float[Array, "T"]) -> sampling.Sampler:
    """The inverse of `upward` to the sampler's order: from noise to data, which is x / alpha where that started."""
    inner = make(path, times[:-1])
    return inner._replace(finish=lambda carry: inner.finish(carry) / path.alpha(times[-2]))


def remaining(times: Float[Array, "T"], strength: Real) -> Float[Array, "_"]:
    """The end of a grid that SDEdit walks (Meng et al. 2022, arXiv 2108.01073): `strength` of its steps, rounded.

    0 leaves the last time alone, 1 the whole grid. Raises UserError outside [0, 1].
    """
    if not 0.0 <= strength <= 1.0:
        raise UserError(f"--strength={strength} must lie in [0, 1].")
    steps = len(times) - 1
    return times[steps - round(strength * steps) :]


def inpainted(sampler: sampling.Sampler, path: Path, times: Float[Array, "T"], resamplings: int) -> sampling.Sampler:
    """Draws what a mask leaves open, given the rest (RePaint: Lugmayr et al. 2022, arXiv 2201.09865, algorithm 1).

    After every step the known part is put back, noised to that step's level; then, `resamplings` - 1 times, the step is
    undone by noise and taken again, so that both parts come to agree. It starts from (noise [N, 3, ...] standard
    normal, known [N, ...], mask [N, ...] with 1 where `known` stays); the sampler must be `MEMORYLESS`. At time 0 the
    known part has no noise, so it is kept exactly.
    """
    if resamplings < 1:
        raise UserError(f"--resamplings={resamplings} must be at least 1.")
    grid = sampling.levels(path, times)
    ratio = grid.alpha[:-1] / grid.alpha[1:]
    again = jnp.sqrt(jnp.maximum(grid.sigma[:-1] ** 2 - (ratio * grid.sigma[1:]) ** 2, 0.0))
    scale = jnp.hypot(grid.alpha[0], grid.sigma[0])

    def step(denoise: sampling.DenoiseFn, carry: Any, j: sampling.Index, noise: Array) -> Any:
        x, known, mask = carry
        i = j // resamplings
        x = sampler.step(denoise, x, i, noise[:, 0])
        x = mask * (grid.alpha[i + 1] * known + grid.sigma[i + 1] * noise[:, 1]) + (1.0 - mask) * x
        undone = ratio[i] * x + again[i] * noise[:, 2]
        return jnp.where(j % resamplings < resamplings - 1, undone, x), known, mask

    return sampling.Sampler(
        init=lambda start: (scale * start[0][:, 0], *start[1:]),
        step=step,
        finish=lambda carry: sampler.finish(carry[0]),
        num_steps=sampler.num_steps * resamplings,
        calls_per_step=sampler.calls_per_step,
    )


def mask_of_latents(mask: Float[Array, "N H W C"], shape: tuple[int, ...]) -> Float[Array, "N h w 1"]:
    """A mask of pixels for spatial latents of `shape` [h, w, c]: 1 where every pixel of the square stays.

    Raises UserError where the latents are vectors, of which no part belongs to a part of the picture, and where the
    squares do not divide it.
    """
    if len(shape) != 3:
        raise UserError(
            f"--mode=inpaint needs spatial latents [h, w, c] or pixels; those of this first stage are {shape}: no part "
            "of such a vector belongs to a part of the picture."
        )
    height, width = mask.shape[1:3]
    if height % shape[0] or width % shape[1]:
        raise UserError(f"--mode=inpaint: latents of {shape[0]}x{shape[1]} do not divide pictures of {height}x{width}.")
    squares = mask.reshape(len(mask), shape[0], height // shape[0], shape[1], width // shape[1], -1)
    return jnp.min(squares, axis=(2, 4, 5))[..., None]
