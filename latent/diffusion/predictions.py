"""What a net's output means, with exact conversions between the meanings.

With x = alpha x0 + sigma eps and s^2 = alpha^2 + sigma^2 the five outputs are linear in one another given x, so each of
them determines both x0 and eps:

    x0        the data
    eps       the noise                            x0 cannot be had where alpha = 0
    v         (alpha eps - sigma x0) / s           defined everywhere
    velocity  eps - x0                             defined everywhere
    score     -eps / sigma = grad log p_t(x)       x0 cannot be had where alpha = 0

v is that of Salimans & Ho 2022 (arXiv 2202.00512, appendix D) on variance-preserving paths (s = 1). Divided by s it
serves every path: x0 = (alpha / s^2) x - (sigma / s) v, which with alpha = 1 is EDM's preconditioning at sigma_data = 1
(c_skip x + c_out F with F = -v), and the input scale 1 / s is its c_in. velocity is the target of rectified flow: on
its path it is dx / d sigma, the time derivative of x where there is no shift.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from latent.diffusion.schedules import Path, expand
from latent.errors import UserError, unknown_name

Level = Float[Array, "*B"]
"""alpha or sigma: one for all examples, or one each."""


class Denoised(NamedTuple):
    """What a denoiser says of x: x = alpha x0 + sigma eps holds between the two. `variance`, where a net learns it,
    says where in [-1, 1] the log-variance of a reverse step lies between its bounds (`samplers/ddpm.py`)."""

    x0: Float[Array, "N ..."]
    eps: Float[Array, "N ..."]
    variance: Float[Array, "N ..."] | None = None


class Prediction(NamedTuple):
    """One meaning of an output; alpha and sigma come in a shape that multiplies x.

    target       (x0, eps, alpha, sigma) -> what the net should return
    x0, eps      (output, x, alpha, sigma) -> x0, eps
    error_scale  (alpha, sigma) -> |output - target| / |x0 - its estimate|, for x given
    at_pure_noise says whether x0 follows from the output where alpha = 0
    """

    target: Callable[[Array, Array, Array, Array], Array]
    x0: Callable[[Array, Array, Array, Array], Array]
    eps: Callable[[Array, Array, Array, Array], Array]
    error_scale: Callable[[Array, Array], Array]
    at_pure_noise: bool


PREDICTIONS = {
    "x0": Prediction(
        target=lambda x0, eps, alpha, sigma: x0,
        x0=lambda output, x, alpha, sigma: output,
        eps=lambda output, x, alpha, sigma: (x - alpha * output) / sigma,
        error_scale=lambda alpha, sigma: jnp.ones_like(alpha),
        at_pure_noise=True,
    ),
    "eps": Prediction(
        target=lambda x0, eps, alpha, sigma: eps,
        x0=lambda output, x, alpha, sigma: (x - sigma * output) / alpha,
        eps=lambda output, x, alpha, sigma: output,
        error_scale=lambda alpha, sigma: alpha / sigma,
        at_pure_noise=False,
    ),
    "v": Prediction(
        target=lambda x0, eps, alpha, sigma: (alpha * eps - sigma * x0) / jnp.hypot(alpha, sigma),
        x0=lambda output, x, alpha, sigma: alpha / (alpha**2 + sigma**2) * x - sigma / jnp.hypot(alpha, sigma) * output,
        eps=lambda output, x, alpha, sigma: (
            sigma / (alpha**2 + sigma**2) * x + alpha / jnp.hypot(alpha, sigma) * output
        ),
        error_scale=lambda alpha, sigma: jnp.hypot(alpha, sigma) / sigma,
        at_pure_noise=True,
    ),
    "velocity": Prediction(
        target=lambda x0, eps, alpha, sigma: eps - x0,
        x0=lambda output, x, alpha, sigma: (x - sigma * output) / (alpha + sigma),
        eps=lambda output, x, alpha, sigma: (x + alpha * output) / (alpha + sigma),
        error_scale=lambda alpha, sigma: (alpha + sigma) / sigma,
        at_pure_noise=True,
    ),
    "score": Prediction(
        target=lambda x0, eps, alpha, sigma: -eps / sigma,
        x0=lambda output, x, alpha, sigma: (x + sigma**2 * output) / alpha,
        eps=lambda output, x, alpha, sigma: -sigma * output,
        error_scale=lambda alpha, sigma: alpha / sigma**2,
        at_pure_noise=False,
    ),
}
"""Predictions by name."""


def find(name: str, path: Path, key: str = "prediction") -> Prediction:
    """The prediction that the config key `key` names.

    Raises UserError for a wrong name, and where the path ends in pure noise and this output says nothing of x0 there.
    """
    if name not in PREDICTIONS:
        raise unknown_name(key, name, PREDICTIONS)
    if path.zero_terminal_snr and not PREDICTIONS[name].at_pure_noise:
        fit = [other for other, prediction in PREDICTIONS.items() if prediction.at_pure_noise]
        raise UserError(
            f"{key}={name!r} does not fit a schedule that ends in pure noise (zero terminal SNR): "
            f"x0 does not follow from it there. Allowed: {', '.join(sorted(fit))}."
        )
    return PREDICTIONS[name]


def target(
    prediction: Prediction, x0: Float[Array, "B ..."], eps: Float[Array, "B ..."], alpha: Level, sigma: Level
) -> Float[Array, "B ..."]:
    """What the net should return for x = alpha x0 + sigma eps."""
    return prediction.target(x0, eps, expand(alpha, x0), expand(sigma, x0))


def denoised(
    prediction: Prediction,
    output: Float[Array, "B ..."],
    x: Float[Array, "B ..."],
    alpha: Level,
    sigma: Level,
    variance: Float[Array, "B ..."] | None = None,
) -> Denoised:
    """Both estimates from a net's output at x."""
    levels = expand(alpha, x), expand(sigma, x)
    return Denoised(prediction.x0(output, x, *levels), prediction.eps(output, x, *levels), variance)


def from_x0(
    x0: Float[Array, "B ..."],
    x: Float[Array, "B ..."],
    alpha: Level,
    sigma: Level,
    variance: Float[Array, "B ..."] | None = None,
) -> Denoised:
    """Both estimates from one of the data, which keeps x = alpha x0 + sigma eps after x0 was clipped or rescaled."""
    return denoised(PREDICTIONS["x0"], x0, x, alpha, sigma, variance)


def input_scale(alpha: Level, sigma: Level) -> Level:
    """1 / s: x times this has unit variance where the data have."""
    return 1.0 / jnp.hypot(alpha, sigma)
