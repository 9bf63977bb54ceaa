"""Learned perceptual similarity of reconstructions and their images (Zhang et al. 2018, arXiv 1801.03924)."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from latent.errors import unknown_name
from latent.evaluation_data import EvaluationData
from latent.extractors import lpips, weight_files
from latent.metrics import extraction, passport
from latent.metrics.codes import reconstruction
from latent.types import Batch, Context, Extra, Model, Params, State

needs = {"encode", "decode"}
BATCH = 50


def names(options: Any) -> tuple[str, ...]:
    """Names of the results; UserError for a network that there is not, or whose weights are not here."""
    if options.network not in lpips.FILES:
        raise unknown_name("lpips.network", options.network, lpips.FILES)
    passport.require_counts("lpips", options, limit=0)
    weight_files.require(lpips.FILES[options.network], f"lpips.network={options.network!r}")
    return (f"reconstruction_lpips_{options.network}",)


def _pairs(model: Model, params: Params, extra: Extra, batch: Batch, context: Context) -> tuple[Any, Any]:
    return batch["x"], reconstruction(model, params, extra, batch, context)


def of_pairs(
    network: str, weights: lpips.Weights, a: Float[np.ndarray, "N H W C"], b: Float[np.ndarray, "N H W C"]
) -> Float[np.ndarray, "N"]:
    """The distance of every pair of images in [0, 1]."""
    found = []
    for start in range(0, len(a), BATCH):
        rows = np.minimum(np.arange(start, start + BATCH), len(a) - 1)  # one shape, hence one compilation
        found.append(jax.device_get(lpips.distance(network, weights, a[rows], b[rows])))
    return np.concatenate(found)[: len(a)]


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Mean over the first `options.limit` images (0: all), decoded from posterior means, on the features of
    `options.network`. Smaller images are enlarged to 64 pixels, for which the weights were made, and this is said."""
    (name,) = names(options)
    if data.split.x.ndim != 4 or data.split.x.dtype != np.uint8:
        return [passport.undefined(name, f"{data.protocol['data']} holds no images")]
    images, decoded = data.map(_pairs, state, limit=options.limit)
    for what, values in (("images", images), ("reconstructions", decoded)):
        extraction.require_finite(values, what)
    weights, sha256 = lpips.read(options.network, f"lpips.network={options.network!r}")
    shorter = max(min(images.shape[1:3]), lpips.SMALLEST)
    told = {"network": options.network, "network_sha256": sha256, "version": "0.1", "shorter_side": shorter}
    distances = of_pairs(options.network, jax.device_put(weights), images, decoded)
    return [passport.mean(name, distances, "LPIPS", data.protocol | told)]
