"""Bounds and exact log-densities of a diffusion model, in nats per example.

Both are `sampling.Sampler`s whose sample is a number per example, so the loop that samples also computes them. The
model starts in N(0, prior_scale^2 I) and, from the last level of its grid on, hands over to a decoder of x given x_t.
Of a latent model these are densities of the latent, not of what it decodes to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float

from latent.diffusion import sampling
from latent.diffusion.predictions import Denoised
from latent.diffusion.schedules import Path, Real, prior_scale
from latent.errors import UserError, unknown_name

LOG_2PI = math.log(2.0 * math.pi)

Nats = Float[Array, "N"]

Decoder = Callable[[Array, Array, Denoised, Array, Array], Nats]
"""(x, x_t, denoised x_t, alpha, sigma) -> log p(x | x_t)."""


class Bound(NamedTuple):
    """Three terms of a lower bound on log p(x), each a negative log-likelihood in nats: log p(x) >= -(their sum)."""

    prior: Nats
    diffusion: Nats
    reconstruction: Nats

    @property
    def log_prob(self) -> Nats:
        return -(self.prior + self.diffusion + self.reconstruction)


def _sum(values: Float[Array, "N ..."]) -> Nats:
    return values.reshape(values.shape[0], -1).sum(axis=1)


def _log_normal(x: Float[Array, "N ..."], scale: Array | float) -> Nats:
    return _sum(-0.5 * (x / scale) ** 2 - jnp.log(scale) - 0.5 * LOG_2PI)


def normal_kl(mean: Array, log_variance: Array, other_mean: Array, other_log_variance: Array) -> Array:
    """KL(N(mean, e^log_variance) || N(other)), elementwise, nats."""
    ratio = log_variance - other_log_variance
    return 0.5 * (jnp.expm1(ratio) - ratio + (mean - other_mean) ** 2 * jnp.exp(-other_log_variance))


def prior_kl(path: Path, x: Float[Array, "N ..."], t: Array | float = 1.0) -> Nats:
    """KL(q(x_t | x) || N(0, prior_scale^2 I)) at the noisy end; 0 where the path ends in pure noise."""
    t = jnp.asarray(t, x.dtype)
    alpha, sigma, scale = path.alpha(t), path.sigma(t), prior_scale(path, t)
    return _sum(normal_kl(alpha * x, 2.0 * jnp.log(sigma), jnp.zeros(()), 2.0 * jnp.log(scale)))


def step_kl(snr: Array, snr_next: Array, x: Float[Array, "N ..."], x0: Float[Array, "N ..."]) -> Nats:
    """KL(q(x_s | x_t, x) || p(x_s | x_t)) of a reverse step with the variance of q: (SNR_s - SNR_t) |x - x0|^2 / 2
    (Kingma et al. 2021, arXiv 2107.00630, eq. 13)."""
    return 0.5 * (snr_next - snr) * _sum((x - x0) ** 2)


def gaussian_decoder(x: Array, x_t: Array, estimate: Denoised, alpha: Array, sigma: Array) -> Nats:
    """log N(x; x_t / alpha, (sigma / alpha)^2): the posterior under a flat prior, right where sigma is small."""
    return _log_normal(x - x_t / alpha, sigma / alpha)


def discretised_gaussian(bins: int = 256, low: Real = -1.0, high: Real = 1.0) -> Decoder:
    """log-probability of levels low .. high in steps of (high - low) / (bins - 1) under N(x0, (sigma / alpha)^2).

    Ho et al. 2020, eq. 13, with the exact normal distribution function (the tanh approximation in circulation is off by
    nats in the tails). The outermost bins reach to infinity, so that a pixel's probabilities sum to 1.
    """
    half = 0.5 * (high - low) / (bins - 1)

    def decoder(x: Array, x_t: Array, estimate: Denoised, alpha: Array, sigma: Array) -> Nats:
        return _sum(bin_log_prob(x, estimate.x0, jnp.log(sigma / alpha), half, low, high))

    return decoder


def bin_log_prob(x: Array, mean: Array, log_scale: Array, half: float, low: Real, high: Real) -> Array:
    """log (Phi(x + half) - Phi(x - half)) of N(mean, e^(2 log_scale)), elementwise; the outermost bins are open."""
    middle = (x - mean) * jnp.exp(-log_scale)
    width = half * jnp.exp(-log_scale)
    # Mirrored into the lower tail, where a difference of distribution functions keeps its digits.
    distance = jnp.abs(middle)
    upper, lower = log_ndtr(width - distance), log_ndtr(-width - distance)
    inside = upper + jnp.log1p(-jnp.exp(lower - upper))
    first, last = x <= low + half, x >= high - half
    return jnp.where(first, log_ndtr(middle + width), jnp.where(last, log_ndtr(width - middle), inside))


def vlb(path: Path, times: Float[Array, "T"], decoder: Decoder = gaussian_decoder) -> sampling.Sampler:
    """The bound of the DDPM with these steps: an unbiased estimate of each term, one call a step.

    `times` are a sampling grid without its 0: the last time is where the decoder takes over. The sampler's start is x
    [N, ...], its sample a `Bound`. With the exact denoiser it rises to log p(x) as steps are added.
    Raises UserError where the grid ends in the data.
    """
    grid = sampling.levels(path, _above_data(times))
    snr = jnp.exp(grid.log_snr)
    steps = grid.num_steps

    def step(denoise: sampling.DenoiseFn, carry: Any, i: sampling.Index, noise: Array) -> Any:
        x, bound = carry
        x_t = grid.alpha[i] * x + grid.sigma[i] * noise
        estimate = denoise(x_t, grid.time[i])
        # The step after the last one is the decoder.
        last = i == steps
        kl = step_kl(snr[i], snr[jnp.minimum(i + 1, steps)], x, estimate.x0)
        log_prob = decoder(x, x_t, estimate, grid.alpha[i], grid.sigma[i])
        return x, bound._replace(
            diffusion=bound.diffusion + jnp.where(last, 0.0, kl),
            reconstruction=bound.reconstruction - jnp.where(last, log_prob, 0.0),
        )

    return _bound_sampler(path, grid.time[0], step, steps + 1)


def continuous_vlb(
    path: Path,
    num_terms: int,
    start: Real = 1.0,
    end: Real | None = None,
    decoder: Decoder = gaussian_decoder,
) -> sampling.Sampler:
    """The bound of infinitely many steps: half the integral of |eps - its estimate|^2 over log-SNR, and two ends.

    Kingma et al. 2021, section 5.1: it depends on the path through its ends alone. The integral is the midpoint rule
    with `num_terms` levels (its error falls with their square), a call each; `start` and `end` (min_time) are times.
    With the exact denoiser its mean is log p(x), up to the start's distance from its prior and what lies below `end`.
    """
    last = path.min_time if end is None else end
    if num_terms < 1:
        raise UserError(f"num_terms={num_terms} must be at least 1.")
    if path.zero_terminal_snr and start >= 1.0:
        # Information below this log-SNR is less than rounding; the integral needs a finite end.
        start = float(path.time(jnp.asarray(-2.0 * math.log(1000.0))))
    ends = sampling.levels(path, jnp.asarray([start, last], float))
    span = ends.log_snr[1] - ends.log_snr[0]

    def step(denoise: sampling.DenoiseFn, carry: Any, i: sampling.Index, noise: Array) -> Any:
        x, bound = carry
        is_last = i == num_terms
        middle = path.time(ends.log_snr[0] + span * ((i + 0.5) / num_terms))
        t = jnp.where(is_last, ends.time[1], middle)
        alpha, sigma = path.alpha(t), path.sigma(t)
        x_t = alpha * x + sigma * noise
        estimate = denoise(x_t, t)
        error = 0.5 * span / num_terms * _sum((noise - estimate.eps) ** 2)
        log_prob = decoder(x, x_t, estimate, alpha, sigma)
        return x, bound._replace(
            diffusion=bound.diffusion + jnp.where(is_last, 0.0, error),
            reconstruction=bound.reconstruction - jnp.where(is_last, log_prob, 0.0),
        )

    return _bound_sampler(path, ends.time[0], step, num_terms + 1)


def ode(path: Path, times: Float[Array, "T"], divergence: str = "exact", method: str = "rk4") -> sampling.Sampler:
    """log p(x) of the probability-flow ODE (Song et al. 2021, arXiv 2011.13456, section 4.3), fixed steps over `times`.

    The clock is the angle phi with tan phi = sigma / alpha, from 0 to pi / 2 on every path, and y = x_t / s: there the
    ODE is dy / d phi = v, the v-prediction, with no derivative of the schedule. `times` are a sampling grid without its
    0; what lies below the last one is taken for noise-free: x_t = alpha x. The sampler's start is x [N, ...], its
    sample [N] nats. `divergence`: "exact", as many derivatives as x has numbers, or "hutchinson", one random probe per
    step, unbiased. `method`: "rk4" (four calls a step) or "heun" (two). Raises UserError for other names.
    """
    if divergence not in DIVERGENCES:
        raise unknown_name("divergence", divergence, DIVERGENCES)
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    grid = sampling.levels(path, jnp.flip(_above_data(times)))
    angle = jnp.arctan2(grid.sigma, grid.alpha)
    stages, weights = METHODS[method]

    def init(x: Array) -> tuple[Array, Nats]:
        # From the density of y to that of x = y / cos phi.
        change = x[0].size * jnp.log(jnp.cos(angle[0]))
        return jnp.cos(angle[0]) * x, jnp.full(x.shape[0], change, x.dtype)

    def step(denoise: sampling.DenoiseFn, carry: Any, i: sampling.Index, noise: Array) -> Any:
        y, log_prob = carry
        length = angle[i + 1] - angle[i]

        def field(y: Array, share: float) -> tuple[Array, Nats]:
            phi = angle[i] + share * length
            # The ends of a step are the grid's own times, whatever rounding the inverse has.
            ends = {0.0: grid.time[i], 1.0: grid.time[i + 1]}
            t = ends[share] if share in ends else path.time(-2.0 * jnp.log(jnp.tan(phi)))
            scale = prior_scale(path, t)

            def v(y: Array) -> Array:
                estimate = denoise(scale * y, t)
                return jnp.cos(phi) * estimate.eps - jnp.sin(phi) * estimate.x0

            value, push = jax.linearize(v, y)
            return value, DIVERGENCES[divergence](push, y, jnp.sign(noise))

        value = slope = jnp.zeros_like(y)
        spread = jnp.zeros_like(log_prob)
        for share, weight in zip(stages, weights, strict=True):
            value, trace = field(y + share * length * value, share)
            slope, spread = slope + weight * value, spread + weight * trace
        return y + length * slope, log_prob + length * spread

    return sampling.Sampler(
        init=init,
        step=step,
        finish=lambda carry: carry[1] + _log_normal(carry[0], 1.0),
        num_steps=grid.num_steps,
        calls_per_step=len(stages),
    )


METHODS = {"heun": ((0.0, 1.0), (0.5, 0.5)), "rk4": ((0.0, 0.5, 0.5, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6))}
"""Explicit Runge-Kutta methods in which each stage starts from the one before: places in the step, weights."""


def _exact(push: Callable[[Array], Array], y: Array, probe: Array) -> Nats:
    basis = jnp.eye(y[0].size, dtype=y.dtype).reshape(-1, *y.shape[1:])
    return jax.vmap(lambda e: _sum(push(jnp.broadcast_to(e, y.shape)) * e))(basis).sum(axis=0)


def _hutchinson(push: Callable[[Array], Array], y: Array, probe: Array) -> Nats:
    return _sum(push(probe) * probe)


DIVERGENCES = {"exact": _exact, "hutchinson": _hutchinson}
"""How the trace of a Jacobian is found: (Jacobian-vector product, y, random signs) -> [N]."""


def bits_per_dim(log_prob: Nats, shape: tuple[int, ...], bin_width: Real = 1.0) -> Nats:
    """-log2 P per dimension, from nats per example of `shape`.

    Log-probabilities take bin_width 1. For a density of uniformly dequantised data in which one integer level is
    `bin_width` wide (2 / 255 where 0 .. 255 became -1 .. 1) it bounds the bits of the integers.
    """
    return -(log_prob / math.prod(shape) + math.log(bin_width)) / math.log(2.0)


def _bound_sampler(path: Path, start: Array, step: Callable, num_steps: int) -> sampling.Sampler:
    def init(x: Array) -> tuple[Array, Bound]:
        zero = jnp.zeros(x.shape[0], x.dtype)
        return x, Bound(prior_kl(path, x, start), zero, zero)

    return sampling.Sampler(init=init, step=step, finish=lambda carry: carry[1], num_steps=num_steps)


def _above_data(times: Float[Array, "T"]) -> Float[Array, "T"]:
    if not isinstance(times, jax.core.Tracer) and bool(times[-1] <= 0.0):
        raise UserError("times must end above 0 for a likelihood: x given x_0 has no density.")
    return times
