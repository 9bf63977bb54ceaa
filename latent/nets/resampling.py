"""Doubling and halving the side of feature maps [B, H, W, C], and whether images can be halved so often."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent.errors import UserError
from latent.nets.layers import wide
from latent.nets.mlp import widths


def stage_widths(section: Any, shape: tuple[int, ...], spared: int = 0) -> tuple[int, ...]:
    """The widths in `section.channels`, one a stage; `spared` of the stages do not halve the image.

    Raises UserError where the examples are no images or cannot be halved so often.
    """
    channels = widths(section, "channels")
    if len(shape) != 3:
        raise UserError(f"model.net.name={section.name!r} needs images [H, W, C], not examples of shape {shape}.")
    factor = 2 ** max(len(channels) - spared, 0)
    if not channels or shape[0] % factor or shape[1] % factor:
        raise UserError(
            f"model.net.channels={channels}: the sides of {shape[0]}x{shape[1]} images must be multiples of {factor} "
            "(data.resize or data.crop change them; fewer channels halve less often)."
        )
    return channels


def _nearest_up(x: Float[Array, "B H W C"]) -> Float[Array, "B _ _ C"]:
    batch, height, width, channels = x.shape
    doubled = jnp.broadcast_to(wide(x)[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return doubled.reshape(batch, 2 * height, 2 * width, channels).astype(x.dtype)


def _mean_down(x: Float[Array, "B H W C"]) -> Float[Array, "B _ _ C"]:
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def _bilinear(x: Float[Array, "B H W C"], height: int, width: int) -> Float[Array, "B _ _ C"]:
    return jax.image.resize(x, (x.shape[0], height, width, x.shape[3]), "bilinear")  # antialiased where it shrinks


UP = {"nearest": _nearest_up, "bilinear": lambda x: _bilinear(x, 2 * x.shape[1], 2 * x.shape[2])}
"""[B, H, W, C] -> [B, 2 H, 2 W, C] by name."""

DOWN = {"nearest": _mean_down, "bilinear": lambda x: _bilinear(x, x.shape[1] // 2, x.shape[2] // 2)}
"""[B, 2 H, 2 W, C] -> [B, H, W, C] by name; the mean of four is the mirror of "nearest"."""
