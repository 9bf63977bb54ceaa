"""A small residual network (He et al. 2016) with group normalisation, so that no example sees its batch."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent.errors import UserError
from latent.nets.conv import Conv
from latent.nets.mlp import widths

GROUPS = 8


class Block(nn.Module):
    """Pre-activation residual block; with a stride of 2 it halves the image."""

    channels: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w channels"]:
        y = nn.relu(nn.GroupNorm(GROUPS, dtype=x.dtype)(x))
        if x.shape[-1] != self.channels or self.stride != 1:
            x = Conv(self.channels, (1, 1), self.stride, use_bias=False)(y)
        y = Conv(self.channels, (3, 3), self.stride)(y)
        return x + Conv(self.channels, (3, 3))(nn.relu(nn.GroupNorm(GROUPS, dtype=y.dtype)(y)))


class Trunk(nn.Module):
    """x [B, H, W, C] -> {"stem", "stage1", ..., "pool"}: feature maps, then their mean [B, channels[-1]]."""

    channels: tuple[int, ...]
    blocks: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> dict[str, Float[Array, "B ..."]]:
        layers = {"stem": Conv(self.channels[0], (3, 3))(x)}
        x = layers["stem"]
        for stage, channels in enumerate(self.channels, 1):
            for block in range(self.blocks):
                x = Block(channels, 2 if block == 0 and stage > 1 else 1)(x)
            layers[f"stage{stage}"] = x
        layers["pool"] = jnp.mean(nn.relu(nn.GroupNorm(GROUPS, dtype=x.dtype)(x)), axis=(1, 2))
        return layers


def trunk(section: Any, shape: tuple[int, ...]) -> nn.Module:
    """Builds the trunk from `section.channels` (multiples of 8) and `section.blocks` a stage."""
    channels = widths(section, "channels")
    if len(shape) != 3 or min(shape[:2]) < 2 ** (len(channels) - 1):
        raise UserError(f"model.net.channels={channels}: too many stages for examples of shape {shape}.")
    if any(width % GROUPS for width in channels):
        raise UserError(f"model.net.channels={channels} must be multiples of {GROUPS}.")
    return Trunk(channels, section.blocks)
