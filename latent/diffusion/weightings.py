"""How much an error at time t counts.

A weighting belongs to |x0 - its estimate|^2, where all predictions meet. Each function here returns it divided by the
prediction's `error_scale`^2, that is the weight of |output - target|^2, computed without the division where that is
0 / 0: so the weighted loss is the same whatever the net predicts. Only `uniform` is by definition the plain loss of
the net's own output. No weighting corrects for where in t one trains: divide by `times.Times.density` for that.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent.diffusion.predictions import Prediction
from latent.diffusion.schedules import Path, Real, Time, finite, positive

Weights = Float[Array, "*B"]
Weighting = Callable[[Path, Prediction, Time], Weights]
"""(path, prediction, t [B]) -> weight [B] of |output - target|^2."""


def rate(path: Path, t: Time) -> Time:
    """-d log_snr / dt > 0: how fast information is lost. Not for the points of a table, where the slope jumps."""
    # At t = 1 of a path that ends in pure noise the derivative is infinite; nothing else comes closer than this.
    inside = jnp.clip(t, 1e-6, 1.0 - 1e-6)
    return -jax.jvp(path.log_snr, (inside,), (jnp.ones_like(inside),))[1]


def _snr_share(path: Path, prediction: Prediction, t: Time) -> Weights:
    """SNR / error_scale^2: 1 for eps, SNR for x0, SNR / (SNR + 1) for v."""
    alpha, sigma = path.alpha(t), path.sigma(t)
    return ((alpha / sigma) / prediction.error_scale(alpha, sigma)) ** 2


def uniform() -> Weighting:
    """1 on the output's own loss: DDPM's L_simple for eps (Ho et al. 2020, eq. 14), rectified flow's for velocity."""
    return lambda path, prediction, t: jnp.ones_like(t)


def elbo() -> Weighting:
    """The bound on log p(x), nats, for t uniform in [0, 1]: -SNR'(t) / 2 (Kingma et al. 2021, eq. 14).

    Of a table's T points, each as likely, it is their own bound: T (SNR(t - 1/T) - SNR(t)) / 2 (eq. 13). The first
    point, before which SNR is infinite, weighs T SNR / 2, as with the reverse variance beta of Ho et al. 2020, eq. 12.
    """

    def weight(path: Path, prediction: Prediction, t: Time) -> Weights:
        if path.num_timesteps is None:
            return 0.5 * rate(path, t) * _snr_share(path, prediction, t)
        size, first = path.num_timesteps, t < 1.5 * path.min_time
        snr = jnp.exp(path.log_snr(t))
        lost = jnp.where(first, snr, jnp.exp(path.log_snr(jnp.where(first, t, t - 1.0 / size))) - snr)
        return 0.5 * size * lost / prediction.error_scale(path.alpha(t), path.sigma(t)) ** 2

    return weight


def min_snr(gamma: Real = 5.0) -> Weighting:
    """min(SNR, gamma) (Hang et al. 2023, arXiv 2303.09556, eq. 8)."""
    positive("gamma", gamma)

    def weight(path: Path, prediction: Prediction, t: Time) -> Weights:
        alpha, sigma = path.alpha(t), path.sigma(t)
        # 1 / error_scale^2 is finite for every prediction that x0 follows from.
        return jnp.minimum((alpha / sigma) ** 2, gamma) / prediction.error_scale(alpha, sigma) ** 2

    return weight


def edm(sigma_data: Real = 1.0) -> Weighting:
    """(sigma^2 + sigma_data^2) / (sigma sigma_data)^2 (Karras et al. 2022, table 1), sigma relative to alpha.

    With sigma_data = 1 it is SNR + 1: the plain loss of v.
    """
    positive("sigma_data", sigma_data)

    def weight(path: Path, prediction: Prediction, t: Time) -> Weights:
        alpha, sigma = path.alpha(t), path.sigma(t)
        scale = prediction.error_scale(alpha, sigma) * sigma * sigma_data
        return (sigma**2 + (alpha * sigma_data) ** 2) / scale**2

    return weight


def p2(gamma: Real = 1.0, offset: Real = 1.0) -> Weighting:
    """SNR / (offset + SNR)^gamma: L_simple for eps, less at high SNR (Choi et al. 2022, arXiv 2204.00227, eq. 9)."""
    positive("offset", offset)
    finite("gamma", gamma)

    def weight(path: Path, prediction: Prediction, t: Time) -> Weights:
        alpha, sigma = path.alpha(t), path.sigma(t)
        return _snr_share(path, prediction, t) / (offset + (alpha / sigma) ** 2) ** gamma

    return weight


WEIGHTINGS: dict[str, Callable[..., Weighting]] = {
    "uniform": uniform,
    "elbo": elbo,
    "min_snr": min_snr,
    "edm": edm,
    "p2": p2,
}
"""Weightings by name: options -> Weighting."""
