"""Paths from data to noise: x_t = alpha(t) x0 + sigma(t) eps with eps ~ N(0, I), t = 0 data, t = 1 noise.

A `Path` is a handful of pure functions of t; everything else in this package is written in terms of them and never
asks which schedule it is. On every path t = 0 is the data itself (alpha = 1, sigma = 0), so "the last step ends at time
0" needs no special case. Knows nothing of nets, losses or samplers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from latent.errors import UserError

Time = Float[Array, "..."]

Real = float | int
"""A number of a config, which may say 2 for 2.0."""


class Path(NamedTuple):
    """alpha(t), sigma(t), log_snr(t) = log alpha^2 / sigma^2 (decreasing) and its inverse time(log_snr).

    The functions act elementwise on arrays of any shape and keep their dtype; inside (0, 1) they can be differentiated.
    `min_time` is the earliest time at which a net is asked anything: 1 / T on a table of T steps.
    `num_timesteps` is T where a discrete table defines the path at t = 1/T, 2/T, ..., 1, else None.
    `zero_terminal_snr` says that alpha(1) = 0: pure noise at the end, where x0 cannot be had from eps.
    `clock` is what a net is told of t: t itself, on a learned path where between its ends log-SNR is, so that what the
    net has learned holds when the path has moved.
    """

    alpha: Callable[[Time], Time]
    sigma: Callable[[Time], Time]
    log_snr: Callable[[Time], Time]
    time: Callable[[Float[Array, "..."]], Time]
    min_time: float
    num_timesteps: int | None = None
    zero_terminal_snr: bool = False
    clock: Callable[[Time], Time] = lambda t: t


def finite(name: str, value: Real) -> None:
    """Raises UserError for an option that is no number or infinite."""
    if not math.isfinite(value):
        raise UserError(f"{name}={value} must be finite.")


def positive(name: str, value: Real) -> None:
    """Raises UserError for an option that is not a positive number, or infinite."""
    if not 0 < value < math.inf:
        raise UserError(f"{name}={value} must be positive and finite.")


def expand(level: Float[Array, "*B"], x: Float[Array, "..."]) -> Float[Array, "..."]:
    """A value per example [B] (or a scalar) in a shape that multiplies x [B, ...]."""
    return level.reshape(level.shape + (1,) * (x.ndim - level.ndim))


def perturb(path: Path, x0: Float[Array, "B ..."], eps: Float[Array, "B ..."], t: Float[Array, "*B"]) -> Array:
    """x_t = alpha(t) x0 + sigma(t) eps for t [B] or one t for all."""
    return expand(path.alpha(t), x0) * x0 + expand(path.sigma(t), x0) * eps


def prior_scale(path: Path, t: Float[Array, "..."] | float = 1.0) -> Float[Array, "..."]:
    """Standard deviation of x_t where the data have unit variance: what a sampler's start is drawn with at time t."""
    t = jnp.asarray(t, float)
    return jnp.hypot(path.alpha(t), path.sigma(t))


# ---- variance preserving: alpha^2 + sigma^2 = 1 ----------------------------------------------------------------------


def _variance_preserving(log_snr: Callable, time: Callable, **facts) -> Path:
    return Path(
        alpha=lambda t: jnp.sqrt(jax.nn.sigmoid(log_snr(t))),
        sigma=lambda t: jnp.sqrt(jax.nn.sigmoid(-log_snr(t))),
        log_snr=log_snr,
        time=time,
        **facts,
    )


def from_betas(betas: np.ndarray, zero_terminal_snr: bool = False) -> Path:
    """The path of a discrete DDPM (Ho et al. 2020, eq. 4): alpha^2 = prod (1 - beta) at t = (i + 1) / T, i < T.

    Between the grid points log-SNR is linear in log t, before the first one its slope is the -1 that sigma^2 ~ t gives,
    so t = 0 is exactly the data. `zero_terminal_snr` shifts and scales alpha so that alpha(1) = 0 (Lin et al. 2024,
    arXiv 2305.08891, algorithm 1); there log-SNR is linear in log t / (1 - t), which has the right pole at t = 1.
    """
    betas = np.asarray(betas, np.float64)
    outside = betas[~((betas > 0) & (betas < 1))]
    if outside.size:
        raise UserError(f"These options make a step's beta {outside[0]:g}; it must lie between 0 and 1.")
    alphas_cumprod = np.cumprod(1.0 - betas)
    size = len(alphas_cumprod)
    if zero_terminal_snr:
        root = np.sqrt(alphas_cumprod)
        alphas_cumprod = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    grid = np.arange(1, size + 1) / size
    if zero_terminal_snr:
        alphas_cumprod, grid = alphas_cumprod[:-1], grid[:-1]
    levels = np.log(alphas_cumprod) - np.log1p(-alphas_cumprod)
    places = np.log(grid) - (np.log1p(-grid) if zero_terminal_snr else 0.0)
    first, last = places[0], places[-1]

    def place_of(t: Time) -> Time:
        # From the nearest knot, so that a grid point in single precision is not beside its knot but on it.
        nearest = jnp.clip(jnp.round(t * size), 1, len(places)).astype(int) - 1
        knot = jnp.asarray(grid, t.dtype)[nearest]
        place = jnp.asarray(places, t.dtype)[nearest] + jnp.log1p((t - knot) / knot)
        return place - jnp.log1p((knot - t) / (1.0 - knot)) if zero_terminal_snr else place

    def log_snr(t: Time) -> Time:
        place = place_of(t)
        inside = jnp.interp(place, jnp.asarray(places, t.dtype), jnp.asarray(levels, t.dtype))
        inside = inside - jnp.minimum(place - first, 0.0)
        return inside - 2.0 * jnp.maximum(place - last, 0.0) if zero_terminal_snr else inside

    def time(level: Float[Array, "..."]) -> Time:
        place = jnp.interp(-level, jnp.asarray(-levels, level.dtype), jnp.asarray(places, level.dtype))
        place = place - jnp.maximum(level - levels[0], 0.0)
        if not zero_terminal_snr:
            return jnp.exp(place)
        return jax.nn.sigmoid(place - 0.5 * jnp.minimum(level - levels[-1], 0.0))

    return _variance_preserving(
        log_snr, time, min_time=1.0 / size, num_timesteps=size, zero_terminal_snr=zero_terminal_snr
    )


def _betas_of(alphas_cumprod: Callable[[np.ndarray], np.ndarray], num_timesteps: int) -> np.ndarray:
    """The betas of a function of t, none above 0.999 (Nichol & Dhariwal 2021, section 3.2)."""
    levels = alphas_cumprod(np.arange(num_timesteps + 1) / num_timesteps)
    return np.minimum(1.0 - levels[1:] / levels[:-1], 0.999)


def linear(
    num_timesteps: int = 1000,
    beta_min: Real = 1e-4,
    beta_max: Real = 0.02,
    zero_terminal_snr: bool = False,
) -> Path:
    """DDPM's betas, linear in the step (Ho et al. 2020, arXiv 2006.11239, section 4)."""
    return from_betas(np.linspace(beta_min, beta_max, _count(num_timesteps)), zero_terminal_snr)


def scaled_linear(
    num_timesteps: int = 1000,
    beta_min: Real = 0.00085,
    beta_max: Real = 0.012,
    zero_terminal_snr: bool = False,
) -> Path:
    """Latent diffusion's betas, linear in their square root (Rombach et al. 2022, arXiv 2112.10752, code)."""
    positive("beta_min", beta_min)
    positive("beta_max", beta_max)
    roots = np.linspace(math.sqrt(beta_min), math.sqrt(beta_max), _count(num_timesteps))
    return from_betas(roots**2, zero_terminal_snr)


def cosine(num_timesteps: int = 1000, offset: Real = 0.008, zero_terminal_snr: bool = False) -> Path:
    """alpha^2 ~ cos^2 (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 17)."""
    if not 0 <= offset < math.inf:
        raise UserError(f"offset={offset} must not be negative.")
    curve = lambda t: np.cos((t + offset) / (1.0 + offset) * np.pi / 2) ** 2  # noqa: E731
    return from_betas(_betas_of(curve, _count(num_timesteps)), zero_terminal_snr)


def sigmoid(
    num_timesteps: int = 1000,
    start: Real = -3.0,
    end: Real = 3.0,
    temperature: Real = 1.0,
    zero_terminal_snr: bool = False,
) -> Path:
    """alpha^2 falls from 1 to 0 along a sigmoid (Jabri et al. 2022, arXiv 2212.11972; Chen 2023, arXiv 2301.10972)."""
    positive("temperature", temperature)
    if not -math.inf < start < end < math.inf:
        raise UserError(f"start={start} must be below end={end}, both finite.")
    squash = lambda t: 1.0 / (1.0 + np.exp(-((end - start) * t + start) / temperature))  # noqa: E731
    curve = lambda t: (squash(1.0) - squash(t)) / (squash(1.0) - squash(0.0))  # noqa: E731
    return from_betas(_betas_of(curve, _count(num_timesteps)), zero_terminal_snr)


def continuous_linear(beta_min: Real = 0.1, beta_max: Real = 20.0) -> Path:
    """The VP SDE: beta(t) linear, log alpha = -t^2 (b1 - b0) / 4 - t b0 / 2.

    Song et al. 2021 (arXiv 2011.13456), eq. 33. The limit of `linear` for many steps, with T beta for the betas.
    """
    if not 0 < beta_min <= beta_max < math.inf:
        raise UserError(f"beta_min={beta_min} must be positive and at most beta_max={beta_max}.")
    log_alpha = lambda t: -0.25 * (beta_max - beta_min) * t**2 - 0.5 * beta_min * t  # noqa: E731

    def time(level: Float[Array, "..."]) -> Time:
        decay = jax.nn.softplus(-level)  # -2 log alpha
        return 2.0 * decay / (beta_min + jnp.sqrt(beta_min**2 + 2.0 * (beta_max - beta_min) * decay))

    return Path(
        alpha=lambda t: jnp.exp(log_alpha(t)),
        sigma=lambda t: jnp.sqrt(-jnp.expm1(2.0 * log_alpha(t))),
        log_snr=lambda t: 2.0 * log_alpha(t) - jnp.log(-jnp.expm1(2.0 * log_alpha(t))),
        time=time,
        min_time=1e-3,
    )


def continuous_cosine(shift: Real = 1.0) -> Path:
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2), then sigma / alpha times `shift`.

    The shift is that of a higher resolution (Hoogeboom et al. 2023, arXiv 2301.11093, eq. 4): log-SNR - 2 log shift.
    """
    positive("shift", shift)
    # cos(pi t / 2) as a sine, so that it is exactly 0 at t = 1.
    signal = lambda t: jnp.sin(0.5 * jnp.pi * (1.0 - t))  # noqa: E731
    noise = lambda t: shift * jnp.sin(0.5 * jnp.pi * t)  # noqa: E731
    return Path(
        alpha=lambda t: signal(t) / jnp.hypot(signal(t), noise(t)),
        sigma=lambda t: noise(t) / jnp.hypot(signal(t), noise(t)),
        log_snr=lambda t: 2.0 * (jnp.log(signal(t)) - jnp.log(noise(t))),
        time=lambda level: (2.0 / jnp.pi) * jnp.arctan(jnp.exp(-0.5 * level) / shift),
        min_time=1e-3,
        zero_terminal_snr=True,
    )


# ---- variance exploding: alpha = 1 -----------------------------------------------------------------------------------


def variance_exploding(sigma_min: Real = 0.01, sigma_max: Real = 50.0) -> Path:
    """The VE SDE: sigma^2 = sigma_min^2 ((sigma_max / sigma_min)^2t - 1), log sigma linear in t but for the start.

    The variance x_t really has (Song et al. 2021, eq. 31): 0 at t = 0, where the shorter form is sigma_min.
    """
    _ordered(sigma_min, sigma_max)
    rate = 2.0 * math.log(sigma_max / sigma_min)
    log_sigma = lambda t: math.log(sigma_min) + 0.5 * jnp.log(jnp.expm1(rate * t))  # noqa: E731
    return Path(
        alpha=jnp.ones_like,
        sigma=lambda t: sigma_min * jnp.sqrt(jnp.expm1(rate * t)),
        log_snr=lambda t: -2.0 * log_sigma(t),
        # log(1 + e^x) at x = log (sigma / sigma_min)^2
        time=lambda level: jax.nn.softplus(-level - 2.0 * math.log(sigma_min)) / rate,
        min_time=math.log(2.0) / rate,
    )


def edm(sigma_min: Real = 0.002, sigma_max: Real = 80.0, rho: Real = 7.0) -> Path:
    """sigma = sigma_max t^rho: EDM's noise levels, evenly spaced in t as its sampler spaces them.

    Karras et al. 2022 (arXiv 2206.00364), eq. 5, is a straight line in this t from 1 to time(sigma_min) = `min_time`,
    followed by sigma = 0; log sigma / 4, which EDM shows the net, is another monotone function of the same level.
    """
    _ordered(sigma_min, sigma_max)
    positive("rho", rho)
    return Path(
        alpha=jnp.ones_like,
        sigma=lambda t: sigma_max * t**rho,
        log_snr=lambda t: -2.0 * (math.log(sigma_max) + rho * jnp.log(t)),
        time=lambda level: jnp.exp((-0.5 * level - math.log(sigma_max)) / rho),
        min_time=(sigma_min / sigma_max) ** (1.0 / rho),
    )


# ---- rectified flow: alpha + sigma = 1 -------------------------------------------------------------------------------


def rectified_flow(shift: Real = 1.0) -> Path:
    """alpha = 1 - sigma, sigma = shift t / (1 + (shift - 1) t) (Liu et al. 2023, arXiv 2209.03003; Lipman et al. 2023).

    `shift` is the resolution shift of Esser et al. 2024 (arXiv 2403.03206, eq. 23). It is part of the path and lies
    nowhere else: training times and sampling grids are those of t, so it acts once in both.
    """
    positive("shift", shift)
    return Path(
        alpha=lambda t: (1.0 - t) / (1.0 + (shift - 1.0) * t),
        sigma=lambda t: shift * t / (1.0 + (shift - 1.0) * t),
        log_snr=lambda t: 2.0 * (jnp.log1p(-t) - jnp.log(t) - math.log(shift)),
        time=lambda level: jax.nn.sigmoid(-0.5 * level - math.log(shift)),
        min_time=1e-3,
        zero_terminal_snr=True,
    )


SCHEDULES: dict[str, Callable[..., Path]] = {
    "linear": linear,
    "scaled_linear": scaled_linear,
    "cosine": cosine,
    "sigmoid": sigmoid,
    "continuous_linear": continuous_linear,
    "continuous_cosine": continuous_cosine,
    "variance_exploding": variance_exploding,
    "edm": edm,
    "rectified_flow": rectified_flow,
}
"""Schedules without parameters, by name: options -> Path. With the learned one: `paths.SCHEDULES`."""


def _count(num_timesteps: int) -> int:
    if num_timesteps != int(num_timesteps) or num_timesteps < 2:
        raise UserError(f"num_timesteps={num_timesteps} must be an integer, at least 2.")
    return num_timesteps


def _ordered(sigma_min: Real, sigma_max: Real) -> None:
    if not 0 < sigma_min < sigma_max < math.inf:
        raise UserError(f"sigma_min={sigma_min} must be positive and below sigma_max={sigma_max}, both finite.")
