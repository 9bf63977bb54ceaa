"""The residual nets of R3GAN (Huang et al. 2024, arXiv 2501.05441, section 3): no normalisation, fix-up initialisation.

A stage is a few residual blocks at one resolution: 1x1, 3x3 (in groups) and 1x1 convolutions with leaky ReLU between
them. A resampling and a 1x1 convolution join two stages. The last convolution of a block starts at zero and the others
are scaled down by the number of blocks (Zhang et al. 2019, arXiv 1901.09321), so that depth needs no norm.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent.errors import UserError, unknown_name
from latent.nets.conv import Conv
from latent.nets.layers import Dense
from latent.nets.resampling import DOWN, UP, stage_widths

SLOPE = 0.2
GAIN = (2.0 / (1.0 + SLOPE**2)) ** 0.5
"""Keeps the variance through a leaky ReLU of that slope (He et al. 2015)."""
EXPANSION = 2
"""Width of a block's inside, relative to the block's."""

activation = partial(nn.leaky_relu, negative_slope=SLOPE)


def scaled(gain: float) -> Any:
    """Normal weights of variance gain^2 / fan-in."""
    return nn.initializers.variance_scaling(gain**2, "fan_in", "normal")


class Block(nn.Module):
    """x + f(x); `depth` is the number of blocks in the whole net."""

    depth: int
    groups: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        # Three layers a block: each of the other two takes depth^(-1 / (2 * 3 - 2)).
        inner, initialiser = EXPANSION * x.shape[-1], scaled(GAIN * self.depth**-0.25)
        y = activation(Conv(inner, (1, 1), kernel_init=initialiser)(x))
        parts = jnp.split(y, self.groups, axis=-1)
        parts = [Conv(inner // self.groups, (3, 3), kernel_init=initialiser)(part) for part in parts]
        y = activation(jnp.concatenate(parts, axis=-1))
        return x + Conv(x.shape[-1], (1, 1), use_bias=False, kernel_init=nn.initializers.zeros_init())(y)


class Critic(nn.Module):
    """x [B, H, W, C] -> one output [B, d] per name in `heads`. One stage a width, a halving between two stages; the
    last map is weighed pixel by pixel with a learned basis."""

    channels: tuple[int, ...]
    blocks: int
    groups: int
    resampling: str
    heads: tuple[tuple[str, int], ...]

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> dict[str, Float[Array, "B _"]]:
        for number, width in enumerate(self.channels):
            x = DOWN[self.resampling](x) if number else x
            if x.shape[-1] != width:
                x = Conv(width, (1, 1), use_bias=False, kernel_init=scaled(1.0))(x)
            for _ in range(self.blocks):
                x = Block(self.blocks * len(self.channels), self.groups)(x)
        pixels = x.shape[1] * x.shape[2]
        basis = self.param("basis", nn.initializers.normal(pixels**-0.5), x.shape[1:])
        x = jnp.einsum("bhwc,hwc->bc", x, basis)
        return {name: Dense(size, kernel_init=scaled(1.0), name=name)(x) for name, size in self.heads}


class Generator(nn.Module):
    """z [B, d] -> [B, H, W, C], unbounded: z weighs a learned basis of coarse maps, which stages then refine."""

    channels: tuple[int, ...]
    blocks: int
    groups: int
    resampling: str
    shape: tuple[int, int, int]

    @nn.compact
    def __call__(self, z: Float[Array, "B d"]) -> Float[Array, "B H W C"]:
        factor = 2 ** (len(self.channels) - 1)
        coarse = (self.shape[0] // factor, self.shape[1] // factor, self.channels[0])
        basis = self.param("basis", nn.initializers.normal(1.0), coarse)
        weights = Dense(self.channels[0], use_bias=False, kernel_init=scaled(1.0))(z)
        x = weights[:, None, None, :] * basis
        for number, width in enumerate(self.channels):
            if number:  # the 1x1 convolution and the resampling commute: fewer pixels first
                x = x if x.shape[-1] == width else Conv(width, (1, 1), use_bias=False, kernel_init=scaled(1.0))(x)
                x = UP[self.resampling](x)
            for _ in range(self.blocks):
                x = Block(self.blocks * len(self.channels), self.groups)(x)
        return Conv(self.shape[-1], (1, 1), kernel_init=scaled(1.0), name="output")(x)


def critic(section: Any, shape: tuple[int, ...], heads: tuple[tuple[str, int], ...] = (("score", 1),)) -> nn.Module:
    """Builds the critic from `section.channels`, `.blocks`, `.groups` and `.resampling`."""
    return Critic(*_read(section, shape), heads)


def generator(section: Any, shape: tuple[int, ...]) -> nn.Module:
    """Builds the mirror of the critic."""
    channels, *rest = _read(section, shape)
    return Generator(channels[::-1], *rest, shape)


def _read(section: Any, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int, int, str]:
    channels = stage_widths(section, shape, spared=1)
    if section.blocks < 1:
        raise UserError(f"model.net.blocks={section.blocks} must be at least 1.")
    if section.groups < 1 or any(EXPANSION * width % section.groups for width in channels):
        raise UserError(
            f"model.net.groups={section.groups} must divide {EXPANSION} times each of model.net.channels={channels}."
        )
    if section.resampling not in UP:
        raise unknown_name("model.net.resampling", section.resampling, UP)
    return channels, section.blocks, section.groups, section.resampling
