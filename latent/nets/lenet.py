"""LeNet (LeCun et al. 1998) in today's dress: two 5x5 convolutions with ReLU and max pooling, one dense layer."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from latent.errors import UserError
from latent.nets.conv import Conv
from latent.nets.mlp import dense, widths

KERNEL = (5, 5)


class Trunk(nn.Module):
    """x [B, H, W, C] -> {"conv1", "conv2", "dense"}: pooled feature maps, then the embedding [B, width]."""

    channels: tuple[int, ...]
    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> dict[str, Float[Array, "B ..."]]:
        layers = {}
        for number, channels in enumerate(self.channels, 1):
            x = nn.max_pool(nn.relu(Conv(channels, KERNEL)(x)), (2, 2), (2, 2))
            layers[f"conv{number}"] = x
        layers["dense"] = nn.relu(dense(self.width)(x.reshape(x.shape[0], -1)))
        return layers


def trunk(section: Any, shape: tuple[int, ...]) -> nn.Module:
    """Builds the trunk from `section.channels` and `section.width`."""
    channels = widths(section, "channels")
    if len(shape) != 3 or min(shape[:2]) < 2 ** len(channels):
        raise UserError(
            f"model.net.channels={channels}: {len(channels)} halvings do not fit examples of shape {shape}."
        )
    return Trunk(channels, section.width)
