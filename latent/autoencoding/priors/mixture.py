"""p(z) = sum_c pi_c N(z; mean_c, exp(log_scale_c)^2), trained with the autoencoder.

With a Gaussian posterior the bound is that of VaDE (Jiang et al. 2017, arXiv 1611.05148) and GMVAE (Dilokthanakul et
al. 2016, arXiv 1611.02648) with the component integrated out: q(c | x) = p(c | z), the best there is. The
responsibilities p(c | z) are the cluster assignment.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from latent import rng
from latent.autoencoding.contract import Prior, flat
from latent.autoencoding.gaussian import log_normal
from latent.errors import UserError
from latent.types import Params

COMPONENT = "prior"
SPREAD = 1.0
"""Standard deviation of the initial means: components must start apart, or they stay one."""

Components = Callable[[Params], tuple[Float[Array, "C"], Float[Array, "C ..."], Float[Array, "C ..."]]]
"""params -> log weights (normalised), means and log scales of Gaussian components."""


def count(section: Any) -> int:
    """`model.prior_components`, checked."""
    if section.prior_components < 1:
        raise UserError(f"model.prior_components={section.prior_components} must be at least 1.")
    return section.prior_components


def of_components(components: Components, init: Callable[[Key[Array, ""]], Params]) -> Prior:
    """The prior that Gaussian components make."""

    def joint(params: Params, z: Float[Array, "B K ..."]) -> Float[Array, "B K C"]:
        log_weights, mean, log_scale = components(params)
        points = z.reshape(z.shape[0] * z.shape[1], math.prod(z.shape[2:]))
        each = log_densities(points, flat(mean, 1), flat(log_scale, 1))
        return log_weights + each.reshape(*z.shape[:2], len(log_weights))

    def sample(params: Params, keys: Key[Array, "N"], temperature: float = 1.0) -> Float[Array, "N ..."]:
        log_weights, mean, log_scale = components(params)
        chosen = jax.vmap(lambda key: jax.random.categorical(jax.random.fold_in(key, 1), log_weights))(keys)
        noise = temperature * rng.normal(keys, *mean.shape[1:])
        return mean[chosen] + jnp.exp(log_scale[chosen]) * noise

    return Prior(
        log_prob=lambda params, z: jax.nn.logsumexp(joint(params, z), axis=-1),
        sample=sample,
        init=init,
        responsibilities=lambda params, z: jax.nn.softmax(joint(params, z[:, None])[:, 0]),
    )


@jax.custom_jvp
def log_densities(
    z: Float[Array, "N D"], mean: Float[Array, "C D"], log_scale: Float[Array, "C D"]
) -> Float[Array, "N C"]:
    """log N(z_n; mean_c, exp(log_scale_c)^2) of every point under every component.

    The values are sums of squared differences. Their derivatives are products of matrices, whose relative error is
    about (distance from the centre of the means / scale)^2 roundings: autodiff's own are arrays of [N, C, D], and the
    gradient of a loss to all three takes 18 ms with them and 1.1 so (100 points, 500 components, 40 dimensions,
    2 CPU cores with AVX-512).
    """
    return jnp.sum(log_normal(z[:, None], mean, log_scale), axis=-1)


@log_densities.defjvp
def _derivative(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    """(mean - z) w dz + (z - mean) w dmean + ((z - mean)^2 w - 1) dlog_scale, w = exp(-2 log_scale), multiplied out."""
    z, mean, log_scale = primals
    dz, dmean, dlog_scale = tangents
    centre = lax.stop_gradient(jnp.mean(mean, axis=0))  # squares are subtracted below: the smaller, the less is lost
    z, mean, weights = z - centre, mean - centre, jnp.exp(-2 * log_scale)
    # For the same reason not in the few bits that accelerators multiply float32 in by default.
    product = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    of_z = product(dz, (mean * weights).T) - product(z * dz, weights.T)
    of_mean = product(z, (weights * dmean).T) - jnp.sum(mean * weights * dmean, axis=-1)
    scaled = weights * dlog_scale
    squares = product(z**2, scaled.T) - 2 * product(z, (mean * scaled).T) + jnp.sum(mean**2 * scaled, axis=-1)
    return log_densities(*primals), of_z + of_mean + squares - jnp.sum(dlog_scale, axis=-1)


def prior(section: Any, latent_shape: tuple[int, ...], spec: Any, posterior: Any) -> Prior:
    """Reads `model.prior_components`."""
    number = count(section)

    def init(key: Key[Array, ""]) -> Params:
        mean = SPREAD * jax.random.normal(key, (number, *latent_shape))
        mixture = {"logits": jnp.zeros(number), "mean": mean, "log_scale": jnp.zeros((number, *latent_shape))}
        return {COMPONENT: mixture}

    def components(params: Params) -> tuple[Array, Array, Array]:
        own = params[COMPONENT]
        return jax.nn.log_softmax(own["logits"]), own["mean"], own["log_scale"]

    return of_components(components, init)
