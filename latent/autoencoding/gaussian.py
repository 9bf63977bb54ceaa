"""Gaussian densities and divergences, in nats."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

LOG_2PI = math.log(2 * math.pi)


def log_normal(z: Float[Array, "..."], mean: Any = 0.0, log_scale: Any = 0.0) -> Float[Array, "..."]:
    """log N(z_j; mean_j, exp(log_scale_j)^2) of every dimension j, not summed."""
    standardised = (z - mean) * jnp.exp(-log_scale)
    return -0.5 * standardised**2 - log_scale - 0.5 * LOG_2PI


def kl_to_standard(mean: Float[Array, "*any"], log_scale: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """KL(N(mean, exp(log_scale)^2) || N(0, 1)) of every dimension (Kingma & Welling 2014, appendix B)."""
    return 0.5 * (mean**2 + jnp.exp(2 * log_scale) - 1.0) - log_scale


def log_normal_full(
    z: Float[Array, "*batch d"], mean: Float[Array, "*batch d"], cholesky: Float[Array, "*batch d d"]
) -> Float[Array, "*batch"]:
    """log N(z; mean, L L') with L = `cholesky`, lower triangular."""
    whitened = solve_triangular(cholesky, (z - mean)[..., None], lower=True)[..., 0]
    log_diagonal = jnp.log(jnp.diagonal(cholesky, axis1=-2, axis2=-1))
    return jnp.sum(log_normal(whitened) - log_diagonal, axis=-1)


def total_correlation(cholesky: Float[Array, "*batch d d"]) -> Float[Array, "*batch"]:
    """KL(N(., L L') || the product of its marginals): by what KL(q || prod_j p_j) exceeds that of the marginals."""
    log_scale, log_diagonal = marginal_log_scale(cholesky), jnp.log(jnp.diagonal(cholesky, axis1=-2, axis2=-1))
    return jnp.sum(log_scale - log_diagonal, axis=-1)


def marginal_log_scale(cholesky: Float[Array, "*batch d d"]) -> Float[Array, "*batch d"]:
    """log standard deviation of every dimension of N(., L L')."""
    return 0.5 * jnp.log(jnp.sum(cholesky**2, axis=-1))
