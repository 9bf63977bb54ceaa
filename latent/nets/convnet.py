"""Strided convolutional encoder and its transposed mirror, for square or oblong images of 8 to 64 pixels.

The same two nets serve as critic and generator (in the manner of DCGAN, Radford et al. 2016, without batch statistics).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float

from latent.errors import UserError
from latent.nets.conv import Conv, ConvTranspose
from latent.nets.mlp import activation, constant, dense, widths

KERNEL = (4, 4)
STRIDE = (2, 2)


class Encoder(nn.Module):
    """x [B, H, W, C] -> one output [B, d] per name in `heads`. Every convolution halves the image."""

    channels: tuple[int, ...]
    hidden: tuple[int, ...]
    activation: Callable[[Array], Array]
    heads: tuple[tuple[str, int], ...]

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> dict[str, Float[Array, "B _"]]:
        for width in self.channels:
            x = self.activation(Conv(width, KERNEL, STRIDE)(x))
        x = x.reshape(x.shape[0], -1)
        for width in self.hidden:
            x = self.activation(dense(width)(x))
        return {name: dense(size, name=name)(x) for name, size in self.heads}


class Decoder(nn.Module):
    """z [B, d] -> [B, H, W, C]: dense layers to the coarsest feature map, then doubling it."""

    channels: tuple[int, ...]
    hidden: tuple[int, ...]
    activation: Callable[[Array], Array]
    shape: tuple[int, int, int]
    output_bias: Callable[..., Array]

    @nn.compact
    def __call__(self, z: Float[Array, "B d"]) -> Float[Array, "B H W C"]:
        for width in self.hidden:
            z = self.activation(dense(width)(z))
        factor = 2 ** len(self.channels)
        coarse = (self.shape[0] // factor, self.shape[1] // factor, self.channels[0])
        z = self.activation(dense(math.prod(coarse))(z)).reshape(-1, *coarse)
        for width in self.channels[1:]:
            z = self.activation(ConvTranspose(width, KERNEL, STRIDE)(z))
        z = ConvTranspose(self.shape[-1], KERNEL, STRIDE, use_bias=False, name="output")(z)
        # One bias per pixel, so that an untrained decoder already gives the mean training image.
        return z + self.param("output_bias", self.output_bias, self.shape)


def _check(section: Any, shape: tuple[int, ...]) -> None:
    channels = widths(section, "channels")
    factor = 2 ** len(channels)
    if len(shape) != 3:
        raise UserError(
            f"model.net.name='convnet' needs images [H, W, C], this data set has examples of shape {shape}."
        )
    if not channels or shape[0] % factor or shape[1] % factor:
        raise UserError(
            f"model.net.channels={channels}: {len(channels)} halvings do not fit images of {shape[0]}x{shape[1]}; "
            f"the size must be a multiple of {factor} (data.resize or data.crop change it)."
        )


def encoder(section: Any, shape: tuple[int, ...], heads: tuple[tuple[str, int], ...]) -> nn.Module:
    """Builds the encoder from `section.channels`, `.hidden` and `.activation`."""
    _check(section, shape)
    function = activation(section.activation, "model.net.activation")
    return Encoder(widths(section, "channels"), widths(section, "hidden"), function, heads)


def decoder(section: Any, shape: tuple[int, ...], output_bias: np.ndarray) -> nn.Module:
    """Builds the mirror of the encoder."""
    _check(section, shape)
    function = activation(section.activation, "model.net.activation")
    channels, hidden = widths(section, "channels")[::-1], widths(section, "hidden")[::-1]
    return Decoder(channels, hidden, function, shape, constant(output_bias))


def critic(section: Any, shape: tuple[int, ...], heads: tuple[tuple[str, int], ...] = (("score", 1),)) -> nn.Module:
    """Builds a critic: one linear output [B, d] per name in `heads`."""
    return encoder(section, shape, heads)


def generator(section: Any, shape: tuple[int, ...]) -> nn.Module:
    """Builds a generator z [B, d] -> [B, H, W, C]."""
    return decoder(section, shape, np.zeros(shape, np.float32))


def latent_shape(section: Any, shape: tuple[int, ...], latent_dim: int) -> tuple[int, ...]:
    """The shape of one latent: a vector."""
    return (latent_dim,)
