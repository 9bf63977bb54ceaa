"""The residual nets of SNGAN (Miyato et al. 2018, arXiv 1802.05957, appendix B.4), with self-attention at one
resolution where it is asked for, as in SAGAN (Zhang et al. 2019, arXiv 1805.08318).

Spectral normalisation itself is `model.spectral_norm`. The generator's batch normalisation is a group normalisation
here, so that no sample sees its batch; the attention is the project's own, which like SAGAN's starts as the identity.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent.errors import UserError
from latent.nets.attention import GridAttention
from latent.nets.conv import Conv
from latent.nets.mlp import dense
from latent.nets.resampling import DOWN, UP, stage_widths
from latent.nets.residual import GroupNorm

INITIALISER = nn.initializers.glorot_uniform()


def convolution(width: int, side: int, **options: Any) -> nn.Module:
    """A stride-1 convolution of `side` x `side` with Glorot-uniform weights."""
    return Conv(width, (side, side), kernel_init=INITIALISER, **options)


class CriticBlock(nn.Module):
    """Residual block of the critic; the first of a net acts on pixels and has no activation before them."""

    width: int
    halve: bool
    first: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w width"]:
        shrink = DOWN["nearest"] if self.halve else (lambda y: y)
        y = convolution(self.width, 3)(x if self.first else nn.relu(x))
        y = shrink(convolution(self.width, 3)(nn.relu(y)))
        if not self.halve and x.shape[-1] == self.width:
            return x + y
        # A 1x1 convolution and a mean commute: first what leaves fewer pixels.
        return convolution(self.width, 1)(shrink(x)) + y


class GeneratorBlock(nn.Module):
    """Residual block of the generator; doubles the image."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B _ _ width"]:
        y = convolution(self.width, 3, upsample=True)(nn.relu(GroupNorm()(x)))
        y = convolution(self.width, 3)(nn.relu(GroupNorm()(y)))
        return UP["nearest"](convolution(self.width, 1)(x)) + y


class Critic(nn.Module):
    """x [B, H, W, C] -> one output [B, d] per name in `heads`, from features summed over the pixels.

    One block a width, each halving the image, and one more that does not. `attention` is the side of the map that
    attention acts on, 0 for none.
    """

    channels: tuple[int, ...]
    attention: int
    heads: tuple[tuple[str, int], ...]

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> dict[str, Float[Array, "B _"]]:
        for number, width in enumerate(self.channels):
            x = CriticBlock(width, halve=True, first=number == 0)(x)
            if x.shape[1] == self.attention:
                x = GridAttention()(x)
        x = jnp.sum(nn.relu(CriticBlock(self.channels[-1], halve=False)(x)), axis=(1, 2))
        return {name: dense(size, name=name)(x) for name, size in self.heads}


class Generator(nn.Module):
    """z [B, d] -> [B, H, W, C], unbounded: a dense layer to the coarsest map, then one doubling block a width."""

    channels: tuple[int, ...]
    attention: int
    shape: tuple[int, int, int]

    @nn.compact
    def __call__(self, z: Float[Array, "B d"]) -> Float[Array, "B H W C"]:
        factor = 2 ** len(self.channels)
        coarse = (self.shape[0] // factor, self.shape[1] // factor, self.channels[0])
        x = dense(math.prod(coarse))(z).reshape(-1, *coarse)
        for width in self.channels:
            if x.shape[1] == self.attention:
                x = GridAttention()(x)
            x = GeneratorBlock(width)(x)
        return convolution(self.shape[-1], 3, name="output")(nn.relu(GroupNorm()(x)))


def critic(section: Any, shape: tuple[int, ...], heads: tuple[tuple[str, int], ...] = (("score", 1),)) -> nn.Module:
    """Builds the critic from `section.channels` and `section.attention`."""
    channels = stage_widths(section, shape)
    return Critic(channels, _attention(section, shape, len(channels)), heads)


def generator(section: Any, shape: tuple[int, ...]) -> nn.Module:
    """Builds the mirror of the critic."""
    channels = stage_widths(section, shape)
    return Generator(channels[::-1], _attention(section, shape, len(channels)), shape)


def _attention(section: Any, shape: tuple[int, ...], halvings: int) -> int:
    sides = [shape[0] // 2**number for number in range(1, halvings + 1)]
    if section.attention not in (0, *sides):
        raise UserError(
            f"model.net.attention={section.attention} must be 0 (none) or the side of a feature map: {sides}."
        )
    return section.attention
