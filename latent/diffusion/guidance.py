"""Guidance: combinations of what several denoisers say of the same x at the same time.

All predictions are linear in one another given x, so combining x0 and eps is combining any of them.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from latent.diffusion.predictions import Denoised, Level, from_x0
from latent.diffusion.schedules import Real, expand
from latent.types import Condition

NULL = -1
"""The label of "no label", and the word of "no word"; classes and words are 0 and up. Nets take any negative number for
it."""

Scale = Float[Array, "*N"] | Real


def classifier_free(conditional: Denoised, unconditional: Denoised, scale: Scale) -> Denoised:
    """unconditional + scale (conditional - unconditional) (Ho & Salimans 2022, arXiv 2207.12598, eq. 6, w = scale - 1).

    scale 1 is exactly the conditional, 0 exactly the unconditional denoiser; a scale may be given per sample [N].
    """
    # As a weighted mean, not as a difference: exact at both ends in floating point too.
    scale = jnp.asarray(scale, conditional.x0.dtype)
    mix = lambda c, u: expand(scale, c) * c + expand(1.0 - scale, u) * u  # noqa: E731
    return Denoised(
        mix(conditional.x0, unconditional.x0), mix(conditional.eps, unconditional.eps), conditional.variance
    )


def autoguidance(strong: Denoised, weak: Denoised, scale: Scale) -> Denoised:
    """Away from a weaker model of the same task (Karras et al. 2024, arXiv 2406.02507, eq. 2); scale 1: the strong."""
    return classifier_free(strong, weak, scale)


def limited_to_interval(scale: Scale, alpha: Level, sigma: Level, low: Real, high: Real) -> Array:
    """The scale where the noise level sigma / alpha lies in (low, high], 1 elsewhere (Kynkaanniemi et al. 2024,
    arXiv 2404.07724, eq. 5)."""
    # Without an upper end pure noise, alpha = 0, lies inside too, where inf * 0 would say nothing.
    inside = (sigma > low * alpha) & (jnp.isinf(high) | (sigma <= high * alpha))
    return jnp.where(inside, scale, 1.0)


def rescaled(
    guided: Denoised, conditional: Denoised, x: Float[Array, "N ..."], alpha: Level, sigma: Level, amount: Real
) -> Denoised:
    """Gives the guided x0 back the spread of the conditional one (Lin et al. 2024, arXiv 2305.08891, eqs. 15-16).

    `amount` (phi) 0 leaves it, 1 rescales fully. Spread is the standard deviation over one sample. The paper rescales
    the net's output; x0 is where the excess of contrast is, and what every prediction has.
    """
    axes = tuple(range(1, x.ndim))
    spread, wanted = (estimate.x0.std(axes, keepdims=True) for estimate in (guided, conditional))
    # What has no spread, such as a latent of one number, has none to give back.
    factor = jnp.where(spread > 0, wanted / jnp.where(spread > 0, spread, 1.0), 1.0)
    return from_x0(guided.x0 * (amount * factor + 1.0 - amount), x, alpha, sigma, guided.variance)


def classifier(
    estimate: Denoised, gradient: Float[Array, "N ..."], alpha: Level, sigma: Level, scale: Scale
) -> Denoised:
    """Adds scale * grad log p(y | x_t) to the score (Dhariwal & Nichol 2021, arXiv 2105.05233, algorithm 2).

    eps - scale sigma g and x0 + scale sigma^2 / alpha g; scale 1 with the exact g is the conditional denoiser (Bayes).
    Where alpha = 0 x says nothing of y, and nothing is added.
    """
    alpha, sigma = expand(alpha, gradient), expand(sigma, gradient)
    push = expand(jnp.asarray(scale, gradient.dtype), gradient) * sigma * jnp.where(alpha > 0, gradient, 0.0)
    return Denoised(
        estimate.x0 + sigma / jnp.where(alpha > 0, alpha, 1.0) * push, estimate.eps - push, estimate.variance
    )


def classifier_gradient(
    log_prob: Callable[[Float[Array, "N ..."]], Float[Array, "N"]], x: Float[Array, "N ..."]
) -> Float[Array, "N ..."]:
    """grad log p(y | x) per sample; log_prob must not mix samples. For a classifier of clean data let it denoise first:
    lambda x: classifier(denoise(x).x0), as Bansal et al. 2023 (arXiv 2302.07121) do."""
    return jax.grad(lambda y: jnp.sum(log_prob(y)))(x)


def drop(told: Int[Array, "B *T"], keys: Key[Array, "B"], probability: Real | Array) -> Int[Array, "B *T"]:
    """Labels, or texts, of which each is NULL with that probability: what trains the unconditional denoiser."""
    dropped = jax.vmap(jax.random.uniform)(keys) < probability
    return jnp.where(dropped.reshape(-1, *(1,) * (told.ndim - 1)), NULL, told)


def nothing(condition: Condition) -> Condition:
    """The condition of as many samples that tells them nothing: every part that is there, dropped."""
    return jax.tree.map(lambda part: jnp.full_like(part, NULL), condition)
