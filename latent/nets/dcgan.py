"""DCGAN (Radford et al. 2016, arXiv 1511.06434): strided convolutions, no pooling, no hidden dense layers.

Where the paper has batch normalisation these nets have group normalisation: batch statistics would make a score depend
on the other examples, and a penalty on the gradient of one example would have no meaning (Gulrajani et al. 2017, arXiv
1704.00028, section 4, who normalise layers for that reason).
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from latent.nets.conv import Conv, ConvTranspose
from latent.nets.layers import Dense
from latent.nets.resampling import stage_widths
from latent.nets.residual import GroupNorm

KERNEL, STRIDE, SLOPE = (4, 4), (2, 2), 0.2
INITIALISER = nn.initializers.normal(0.02)


class Critic(nn.Module):
    """x [B, H, W, C] -> one output [B, d] per name in `heads`. Every convolution halves the image."""

    channels: tuple[int, ...]
    heads: tuple[tuple[str, int], ...]

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> dict[str, Float[Array, "B _"]]:
        for number, width in enumerate(self.channels):
            x = Conv(width, KERNEL, STRIDE, kernel_init=INITIALISER)(x)
            x = nn.leaky_relu(x if number == 0 else GroupNorm()(x), SLOPE)
        x = x.reshape(x.shape[0], -1)
        return {name: Dense(size, kernel_init=INITIALISER, name=name)(x) for name, size in self.heads}


class Generator(nn.Module):
    """z [B, d] -> [B, H, W, C], unbounded: a dense layer to the coarsest feature map, then doubling it."""

    channels: tuple[int, ...]
    shape: tuple[int, int, int]

    @nn.compact
    def __call__(self, z: Float[Array, "B d"]) -> Float[Array, "B H W C"]:
        factor = 2 ** len(self.channels)
        coarse = (self.shape[0] // factor, self.shape[1] // factor, self.channels[0])
        x = Dense(math.prod(coarse), kernel_init=INITIALISER)(z).reshape(-1, *coarse)
        x = nn.relu(GroupNorm()(x))
        for width in self.channels[1:]:
            x = nn.relu(GroupNorm()(ConvTranspose(width, KERNEL, STRIDE, kernel_init=INITIALISER)(x)))
        return ConvTranspose(self.shape[-1], KERNEL, STRIDE, kernel_init=INITIALISER, name="output")(x)


def critic(section: Any, shape: tuple[int, ...], heads: tuple[tuple[str, int], ...] = (("score", 1),)) -> nn.Module:
    """Builds the critic from `section.channels`."""
    return Critic(stage_widths(section, shape), heads)


def generator(section: Any, shape: tuple[int, ...]) -> nn.Module:
    """Builds the mirror of the critic."""
    return Generator(stage_widths(section, shape)[::-1], shape)
