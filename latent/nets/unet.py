"""The U-shaped denoiser of grids [h, w, c] (Ho et al. 2020, appendix B) with adaptive group normalisation (Dhariwal &
Nichol 2021, section 3).

The keys it reads, with sensible values for 8x8x4 latents; in brackets those of DDPM on 32x32x3 images:

    channels           (64, 128)  one width a level; between two levels the grid is halved [(128, 256, 256, 256)]
    num_blocks         2          residual blocks a level on the way down, one more on the way up [2]
    attention_levels   (1,)       levels whose blocks are followed by attention, 0 being the full resolution [(1,)]
    heads              1          of each attention; divides the width there [1]
    self_conditioning  False      take the previous estimate as further channels

Between the way down and the way up there is always one attention. Sides need not be even: 7 -> 4 -> 2 -> 4 -> 7.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent.errors import UserError
from latent.nets.attention import GridAttention, check_heads
from latent.nets.conv import Conv
from latent.nets.embeddings import Conditioning, with_previous
from latent.nets.mlp import count, widths
from latent.nets.residual import Downsample, GroupNorm, ResidualBlock, Upsample
from latent.types import UNTOLD, Condition

EXPANSION = 4
"""Width of the conditioning vector, relative to the first level's."""


class UNet(nn.Module):
    """x [B, h, w, c], t [B] in [0, 1], a condition, previous estimate like x or None -> [B, h, w, outputs * c].

    Initially 0.
    """

    channels: tuple[int, ...]
    num_blocks: int
    attention_levels: tuple[int, ...]
    heads: int
    num_classes: int
    num_words: int
    outputs: int
    self_conditioning: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B h w c"],
        t: Float[Array, "B"],
        condition: Condition = UNTOLD,
        previous: Float[Array, "B h w c"] | None = None,
    ) -> Float[Array, "B h w _"]:
        first, levels = self.channels[0], len(self.channels)
        embedded = nn.silu(Conditioning(EXPANSION * first, first, self.num_classes, self.num_words)(t, condition))

        def block(y: Array, level: int) -> Array:
            y = ResidualBlock(self.channels[level])(y, embedded)
            return GridAttention(self.heads)(y) if level in self.attention_levels else y

        y = Conv(first, (3, 3), name="input")(with_previous(x, previous, self.self_conditioning))
        skips = [y]
        for level in range(levels):
            if level:
                y = Downsample()(y)
                skips.append(y)
            for _ in range(self.num_blocks):
                y = block(y, level)
                skips.append(y)
        y = ResidualBlock(self.channels[-1])(y, embedded)
        y = ResidualBlock(self.channels[-1])(GridAttention(self.heads)(y), embedded)
        for level in reversed(range(levels)):
            for _ in range(self.num_blocks + 1):
                y = block(jnp.concatenate([y, skips.pop()], axis=-1), level)
            if level:
                y = Upsample(skips[-1].shape[1:3])(y)
        zeros = nn.initializers.zeros_init()
        return Conv(self.outputs * x.shape[-1], (3, 3), kernel_init=zeros, name="output")(nn.silu(GroupNorm()(y)))


def denoiser(section: Any, shape: tuple[int, ...], num_classes: int, outputs: int = 1, num_words: int = 0) -> nn.Module:
    """Builds the denoiser for grids of `shape` [h, w, c].

    Raises `UserError` for other shapes, more halvings than the grid allows, levels that do not exist, and heads that
    do not divide the widths.
    """
    channels, attention_levels = widths(section, "channels"), tuple(section.attention_levels)
    if len(shape) != 3:
        raise UserError(f"model.net.name='unet' needs grids [h, w, c], not {shape}: choose residual_mlp for vectors.")
    if not channels or min(shape[:2]) <= 2 ** (len(channels) - 2):
        raise UserError(
            f"model.net.channels={channels}: {len(channels)} levels do not fit grids of {shape[0]}x{shape[1]}; "
            "it needs at least one, and none may halve a single pixel."
        )
    if any(level not in range(len(channels)) for level in attention_levels):
        raise UserError(f"model.net.attention_levels={attention_levels} must lie in 0 .. {len(channels) - 1}.")
    heads = count(section, "heads")
    check_heads(heads, (*(channels[level] for level in attention_levels), channels[-1]))
    told = (num_classes, num_words, outputs, section.self_conditioning)
    return UNet(channels, count(section, "num_blocks"), attention_levels, heads, *told)
