"""SDE-DPM-Solver++(2M): the stochastic form of `dpmpp_2m` (Lu et al. 2022, arXiv 2211.01095, section 5)."""

from __future__ import annotations

from jaxtyping import Array, Float

from latent.diffusion import sampling
from latent.diffusion.samplers import dpmpp_2m
from latent.diffusion.schedules import Path, Real
from latent.errors import UserError


def sampler(
    path: Path, times: Float[Array, "T"], eta: Real = 1.0, lower_order_final: bool | None = None
) -> sampling.Sampler:
    """eta = 1 is the reverse SDE; less of it adds less noise, 0 is `dpmpp_2m`. Raises UserError outside [0, 1]."""
    if not 0.0 <= eta <= 1.0:
        raise UserError(f"eta={eta} must lie in [0, 1].")
    return dpmpp_2m.multistep(path, times, eta, lower_order_final)
