"""A fully convolutional critic that scores patches of an image (PatchGAN: Isola et al. 2017, arXiv 1611.07004,
section 3.2.2).

The key it reads: `channels`, e.g. (64, 128): one 4x4 convolution that halves the image per width, then one that does
not, of the last width, and one that scores: receptive fields of 16, 34 and 70 pixels with one, two and three widths.

There is no normalisation. Batch statistics would let an example's score depend on its batch, and with it on the number
of devices, and have no place beside gradient penalties, which are defined example by example. A group norm averages
over the whole image, so that a patch's score would depend on every other patch.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from latent.errors import UserError
from latent.nets.conv import Conv
from latent.nets.mlp import widths

KERNEL = (4, 4)
SLOPE = 0.2

activation = partial(nn.leaky_relu, negative_slope=SLOPE)
# Without a norm the weights must keep the variance through the leaky ReLUs (He et al. 2015, eq. 15).
conv = partial(Conv, kernel_init=nn.initializers.variance_scaling(2.0 / (1.0 + SLOPE**2), "fan_in", "normal"))


class Critic(nn.Module):
    """x [B, H, W, C] -> one output [B, h, w, d] per name in `heads`: a value for every patch."""

    channels: tuple[int, ...]
    heads: tuple[tuple[str, int], ...]

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> dict[str, Float[Array, "B h w _"]]:
        for width in self.channels:
            x = activation(conv(width, KERNEL, 2)(x))
        x = activation(conv(self.channels[-1], KERNEL)(x))
        return {name: conv(size, KERNEL, name=name)(x) for name, size in self.heads}


def critic(section: Any, shape: tuple[int, ...], heads: tuple[tuple[str, int], ...] = (("score", 1),)) -> nn.Module:
    """Builds the critic; raises `UserError` for examples that are no images or too small for a score per patch."""
    channels = widths(section, "channels")
    if len(shape) != 3:
        raise UserError(f"model.net.name='patch' needs images [H, W, C], not examples of shape {shape}.")
    if not channels or min(shape[:2]) < 2 ** (len(channels) + 1):
        raise UserError(
            f"model.net.channels={channels}: after {len(channels)} halvings an image of {shape[0]}x{shape[1]} must "
            "still have 2x2 pixels, and there must be one width at least."
        )
    return Critic(channels, heads)
