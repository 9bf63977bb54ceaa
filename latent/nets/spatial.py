"""The convolutional first stage of latent diffusion: images [H, W, C] to latents [h, w, c] and back.

In the manner of Esser et al. 2021 (arXiv 2012.09841, appendix A) and Rombach et al. 2022 (arXiv 2112.10752). The keys
it reads, with sensible values for 28x28 images and latents of 7x7 ("f4"):

    channels    (32, 64, 64)  one width a stage; between two stages the image is halved: n widths are f2^(n-1)
    num_blocks  1             residual blocks a stage
    attention   True          attention over the pixels of the latent's resolution

Any image whose sides are multiples of f will do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float

from latent.nets.attention import GridAttention
from latent.nets.conv import Conv
from latent.nets.mlp import constant, count
from latent.nets.resampling import stage_widths
from latent.nets.residual import Downsample, GroupNorm, ResidualBlock, Upsample


class Middle(nn.Module):
    """Residual block, attention (where wanted), residual block, at the latent's resolution."""

    attention: bool

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        x = ResidualBlock(x.shape[-1])(x)
        if self.attention:
            x = GridAttention()(x)
        return ResidualBlock(x.shape[-1])(x)


class Encoder(nn.Module):
    """x [B, H, W, C] -> one output [B, h, w, d] per name in `heads`."""

    channels: tuple[int, ...]
    num_blocks: int
    attention: bool
    heads: tuple[tuple[str, int], ...]

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> dict[str, Float[Array, "B h w _"]]:
        x = Conv(self.channels[0], (3, 3), name="input")(x)
        for stage, width in enumerate(self.channels):
            x = Downsample()(x) if stage else x
            for _ in range(self.num_blocks):
                x = ResidualBlock(width)(x)
        x = nn.silu(GroupNorm()(Middle(self.attention)(x)))
        return {name: Conv(size, (3, 3), name=name)(x) for name, size in self.heads}


class Decoder(nn.Module):
    """z [B, h, w, c] -> [B, H, W, C]: the mirror of the encoder. `channels` begin at the latent's resolution."""

    channels: tuple[int, ...]
    num_blocks: int
    attention: bool
    shape: tuple[int, int, int]
    output_bias: Callable[..., Array]

    @nn.compact
    def __call__(self, z: Float[Array, "B h w c"]) -> Float[Array, "B H W C"]:
        x = Middle(self.attention)(Conv(self.channels[0], (3, 3), name="input")(z))
        for stage, width in enumerate(self.channels):
            x = Upsample()(x) if stage else x
            for _ in range(self.num_blocks):
                x = ResidualBlock(width)(x)
        x = Conv(self.shape[-1], (3, 3), use_bias=False, name="output")(nn.silu(GroupNorm()(x)))
        # One bias per pixel, so that an untrained decoder already gives the mean training image.
        return x + self.param("output_bias", self.output_bias, self.shape)


def encoder(section: Any, shape: tuple[int, ...], heads: tuple[tuple[str, int], ...]) -> nn.Module:
    """Builds the encoder; raises `UserError` for examples that are no images or cannot be halved so often."""
    channels = stage_widths(section, shape, spared=1)
    return Encoder(channels, count(section, "num_blocks"), section.attention, heads)


def decoder(section: Any, shape: tuple[int, ...], output_bias: np.ndarray) -> nn.Module:
    """Builds the mirror of the encoder."""
    channels = stage_widths(section, shape, spared=1)[::-1]
    return Decoder(channels, count(section, "num_blocks"), section.attention, shape, constant(output_bias))


def latent_shape(section: Any, shape: tuple[int, ...], latent_dim: int) -> tuple[int, ...]:
    """The shape of one latent: a grid [h, w, latent_dim]."""
    factor = 2 ** (len(stage_widths(section, shape, spared=1)) - 1)
    return (shape[0] // factor, shape[1] // factor, latent_dim)
