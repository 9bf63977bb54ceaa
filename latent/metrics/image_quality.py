"""Reconstructions judged as images: peak signal-to-noise ratio and structural similarity, for pixels in [0, 1]."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from latent.evaluation_data import EvaluationData
from latent.metrics import passport
from latent.metrics.codes import reconstruction
from latent.types import Batch, Context, Extra, Model, Params, State

needs = {"encode", "decode"}
WINDOW, SIGMA = 11, 1.5
STABILISERS = 0.01**2, 0.03**2
PERFECT = 100.0
"""Decibels that no ratio exceeds, so that a perfect copy does not make a mean infinite."""


def names(options: Any) -> tuple[str, ...]:
    """Names of the results."""
    return ("reconstruction_psnr", "reconstruction_ssim")


def peak_signal_to_noise_ratio(a: Float[Array, "B H W C"], b: Float[Array, "B H W C"]) -> Float[Array, "B"]:
    """-10 log10 of the mean squared error, decibels, at most 100."""
    error = jnp.mean((a - b).reshape(a.shape[0], -1) ** 2, axis=1)
    return -10.0 * jnp.log10(jnp.maximum(error, 10.0 ** (-PERFECT / 10)))


def window_size(height: int, width: int) -> int:
    """Side of the window: 11, or the largest odd number that fits a smaller image."""
    side = min(WINDOW, height, width)
    return side - (side % 2 == 0)


def structural_similarity(a: Float[Array, "B H W C"], b: Float[Array, "B H W C"]) -> Float[Array, "B"]:
    """Mean structural similarity (Wang et al. 2004, IEEE TIP 13(4), eq. 13): Gaussian window of 1.5 pixels, population
    moments, windows wholly inside the image, channels averaged."""
    size = window_size(*a.shape[1:3])
    offsets = np.arange(size) - size // 2
    weights = np.exp(-0.5 * (offsets / SIGMA) ** 2)
    weights /= weights.sum()

    def average(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
        # The window is a product of two vectors: a banded matrix on either side, no convolution.
        rows, columns = (_banded(weights, side) for side in x.shape[1:3])
        return jnp.einsum("ih,bhwc,jw->bijc", rows, x, columns)

    first, second = STABILISERS
    mean_a, mean_b = average(a), average(b)
    variance_a, variance_b = average(a * a) - mean_a**2, average(b * b) - mean_b**2
    covariance = average(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + first) / (mean_a**2 + mean_b**2 + first)
    structure = (2 * covariance + second) / (variance_a + variance_b + second)
    return jnp.mean((luminance * structure).reshape(a.shape[0], -1), axis=1)


def _banded(weights: Float[np.ndarray, "k"], side: int) -> Float[np.ndarray, "out side"]:
    """Row i holds the weights from place i on."""
    matrix = np.zeros((side - len(weights) + 1, side), np.float32)
    for row in range(len(matrix)):
        matrix[row, row : row + len(weights)] = weights
    return matrix


def _qualities(
    model: Model, params: Params, extra: Extra, batch: Batch, context: Context
) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
    decoded = reconstruction(model, params, extra, batch, context)
    return peak_signal_to_noise_ratio(batch["x"], decoded), structural_similarity(batch["x"], decoded)


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Means over images of both, decoded from posterior means."""
    if data.split.x.ndim != 4 or data.split.x.dtype != np.uint8:
        return [passport.undefined(name, f"{data.protocol['data']} holds no images") for name in names(options)]
    ratios, similarities = data.map(_qualities, state)
    protocol = data.protocol | {"window": window_size(*data.batch(1)["x"].shape[1:3]), "sigma": SIGMA}
    return [
        passport.mean("reconstruction_psnr", ratios, "dB", data.protocol),
        passport.mean("reconstruction_ssim", similarities, "similarity", protocol),
    ]
