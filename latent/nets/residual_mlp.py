"""A residual multilayer perceptron as a denoiser of vector latents [d].

The keys it reads, with sensible values:

    width              256     of every layer
    depth              4       residual blocks
    self_conditioning  False   take the previous estimate as further inputs
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent.errors import UserError
from latent.nets.embeddings import Conditioning, with_previous
from latent.nets.layers import Dense, wide
from latent.nets.mlp import count
from latent.types import UNTOLD, Condition

ZEROS = nn.initializers.zeros_init()


def modulated_norm(x: Float[Array, "B *any C"], condition: Float[Array, "B E"], name: str) -> Float[Array, "B *any C"]:
    """Layer norm whose scale and shift are affine in the condition ("FiLM", Perez et al. 2018), at first plain.

    To be called inside a module: it adds the dense layer `name` to it.
    """
    modulation = Dense(2 * x.shape[-1], kernel_init=ZEROS, name=name)(condition)
    scale, shift = jnp.split(modulation, 2, axis=-1)
    normal = nn.LayerNorm(epsilon=1e-6, use_bias=False, use_scale=False)(wide(x))
    return (normal * (1.0 + scale) + shift).astype(x.dtype)


class Block(nn.Module):
    """x [B, C], condition [B, E] -> [B, C]: x + a perceptron of the modulated x; initially the identity."""

    @nn.compact
    def __call__(self, x: Float[Array, "B C"], condition: Float[Array, "B E"]) -> Float[Array, "B C"]:
        y = Dense(x.shape[-1])(modulated_norm(x, condition, "modulation"))
        return x + Dense(x.shape[-1], kernel_init=ZEROS)(nn.silu(y))


class Denoiser(nn.Module):
    """x [B, d], t [B] in [0, 1], a condition, previous estimate [B, d] or None -> [B, outputs * d].

    Initially 0. In the manner of the denoising MLP of Li et al. 2024 (arXiv 2406.11838, section 4.1).
    """

    width: int
    depth: int
    num_classes: int
    num_words: int
    outputs: int
    self_conditioning: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B d"],
        t: Float[Array, "B"],
        condition: Condition = UNTOLD,
        previous: Float[Array, "B d"] | None = None,
    ) -> Float[Array, "B _"]:
        embedded = nn.silu(Conditioning(self.width, self.width, self.num_classes, self.num_words)(t, condition))
        y = Dense(self.width, name="input")(with_previous(x, previous, self.self_conditioning))
        for _ in range(self.depth):
            y = Block()(y, embedded)
        y = modulated_norm(y, embedded, "modulation")
        return Dense(self.outputs * x.shape[-1], kernel_init=ZEROS, name="output")(y)


def denoiser(section: Any, shape: tuple[int, ...], num_classes: int, outputs: int = 1, num_words: int = 0) -> nn.Module:
    """Builds the denoiser for latents of `shape` [d]; raises `UserError` for other shapes and for widths below 1."""
    if len(shape) != 1:
        raise UserError(
            f"model.net.name='residual_mlp' needs vector latents [d], not {shape}: choose unet or dit for grids."
        )
    width, depth = count(section, "width"), count(section, "depth")
    return Denoiser(width, depth, num_classes, num_words, outputs, section.self_conditioning)
