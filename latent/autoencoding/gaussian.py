"""Diagonal Gaussian densities and divergences, in nats."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

LOG_2PI = math.log(2 * math.pi)


def log_normal(z: Float[Array, "..."], mean: Any = 0.0, log_scale: Any = 0.0) -> Float[Array, "..."]:
    """log N(z_j; mean_j, exp(log_scale_j)^2) of every dimension j, not summed."""
    standardised = (z - mean) * jnp.exp(-log_scale)
    return -0.5 * standardised**2 - log_scale - 0.5 * LOG_2PI


def kl_to_standard(mean: Float[Array, "*any"], log_scale: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """KL(N(mean, exp(log_scale)^2) || N(0, 1)) of every dimension (Kingma & Welling 2014, appendix B)."""
    return 0.5 * (mean**2 + jnp.exp(2 * log_scale) - 1.0) - log_scale
