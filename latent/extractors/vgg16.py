"""VGG16's last convolutional features, averaged over places: 512 numbers an image, of weights trained on ImageNet."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent.extractors import lpips, weight_files
from latent.extractors.contract import Extractor

NAME = "vgg16"
FILE = lpips.FILES[NAME]


def load() -> Extractor:
    """The extractor; UserError where its weights are absent or damaged. It knows no classes: the file has none."""
    weights, sha256 = lpips.read(NAME, f"extractor={NAME!r}")
    weights = jax.device_put(weights)
    features = functools.partial(_features, weights)
    card = {"shape": None, "num_classes": 0, "input": f"RGB, at least {lpips.SMALLEST} pixels a side, bilinear"}
    return Extractor(NAME, sha256, features, functools.partial(_maps, weights), card, batch=50)


def require(key: str) -> None:
    """UserError where the weights are absent; they are not read."""
    weight_files.require(FILE, key)


@jax.jit
def _maps(weights: lpips.Weights, x: Float[Array, "B H W C"]) -> list[Float[Array, "B _h _w _c"]]:
    return lpips.maps(lpips.STAGES[NAME], weights, lpips.prepared(x))


@jax.jit
def _features(weights: lpips.Weights, x: Float[Array, "B H W C"]) -> dict[str, Float[Array, "B d"]]:
    return {"features": jnp.mean(_maps(weights, x)[-1], axis=(1, 2))}
