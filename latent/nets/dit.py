"""The diffusion transformer (Peebles & Xie 2023, arXiv 2212.09748) with adaLN-Zero blocks, as a denoiser.

A grid [h, w, c] is cut into squares of patch x patch pixels, a vector [d] into pieces of `patch` numbers; each is a
token. The keys it reads, with sensible values for small latents:

    patch              2       pixels on a token's side, or numbers in a vector's token; divides the shape
    width              128     of a token: a multiple of heads and of 4 (of 2 for vectors)
    depth              4       blocks
    heads              4       of each attention
    qk_norm            False   normalise queries and keys: for long trainings in low precision
    remat              False   recompute a block's inside in the backward pass: less memory, a third more time
    self_conditioning  False   take the previous estimate as further channels

The paper's sizes (depth, width, heads): S (12, 384, 6), B (12, 768, 12), L (24, 1024, 16), XL (28, 1152, 16); "/2"
is patch=2, and a learned variance outputs=2.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent.errors import UserError
from latent.nets.attention import SelfAttention, check_heads
from latent.nets.embeddings import Conditioning, grid_positions, with_previous
from latent.nets.layers import Dense, wide
from latent.nets.mlp import count, dense
from latent.types import UNTOLD, Condition

FREQUENCIES = 256
EXPANSION = 4
"""Width of a block's perceptron, relative to a token's."""
ZEROS = nn.initializers.zeros_init()
NORMAL = nn.initializers.normal(0.02)


def patchify(x: Float[Array, "B h w c"], patch: tuple[int, int]) -> Float[Array, "B T _"]:
    """Cuts a grid into tokens, in row-major order; a token holds its patch [rows, columns, c] in this order."""
    batch, height, width, channels = x.shape
    rows, columns = patch
    x = x.reshape(batch, height // rows, rows, width // columns, columns, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, rows * columns * channels)


def unpatchify(tokens: Float[Array, "B T _"], patch: tuple[int, int], size: tuple[int, int]) -> Float[Array, "B h w c"]:
    """The inverse of `patchify`, for a grid of `size` [h, w]."""
    (height, width), (rows, columns) = size, patch
    x = tokens.reshape(tokens.shape[0], height // rows, width // columns, rows, columns, -1)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(tokens.shape[0], height, width, -1)


def _modulate(x: Float[Array, "B T C"], shift: Float[Array, "B C"], scale: Float[Array, "B C"]) -> Array:
    """Layer norm without parameters, then scaled and shifted."""
    normal = nn.LayerNorm(epsilon=1e-6, use_bias=False, use_scale=False)(wide(x))
    return (normal * (1.0 + scale[:, None]) + shift[:, None]).astype(x.dtype)


class Block(nn.Module):
    """x [B, T, C], condition [B, E] -> [B, T, C]; adaLN-Zero: initially the identity (section 3.2)."""

    heads: int
    qk_norm: bool

    @nn.compact
    def __call__(self, x: Float[Array, "B T C"], condition: Float[Array, "B E"]) -> Float[Array, "B T C"]:
        width = x.shape[-1]
        modulation = Dense(6 * width, kernel_init=ZEROS, name="modulation")(condition)
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = jnp.split(modulation, 6, axis=-1)
        y = SelfAttention(self.heads, self.qk_norm, name="attention")(_modulate(x, shift_1, scale_1))
        x = x + (gate_1[:, None] * wide(y)).astype(x.dtype)
        y = dense(EXPANSION * width, name="expand")(_modulate(x, shift_2, scale_2))
        y = dense(width, name="contract")(nn.gelu(y, approximate=True))
        return x + (gate_2[:, None] * wide(y)).astype(x.dtype)


class DiT(nn.Module):
    """x [B, *shape], t [B] in [0, 1], a condition, previous estimate like x or None -> [B, ..., outputs * c].

    Initially 0. A vector is a grid of one column and one channel.
    """

    patch: int
    width: int
    depth: int
    heads: int
    qk_norm: bool
    remat: bool
    num_classes: int
    num_words: int
    outputs: int
    self_conditioning: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B *shape"],
        t: Float[Array, "B"],
        condition: Condition = UNTOLD,
        previous: Float[Array, "B *shape"] | None = None,
    ) -> Float[Array, "B ..."]:
        vector = x.ndim == 2
        if vector:
            x, previous = (None if grid is None else grid[:, :, None, None] for grid in (x, previous))
        patch = (self.patch, 1 if vector else self.patch)
        conditioning = Conditioning(self.width, FREQUENCIES, self.num_classes, self.num_words, NORMAL)
        embedded = nn.silu(conditioning(t, condition))
        tokens = patchify(with_previous(x, previous, self.self_conditioning), patch)
        grid = (x.shape[1] // patch[0],) if vector else (x.shape[1] // patch[0], x.shape[2] // patch[1])
        tokens = dense(self.width, name="input")(tokens)
        tokens += jnp.asarray(grid_positions(grid, self.width), tokens.dtype)
        tokens = self._blocks(tokens, embedded)
        shift, scale = jnp.split(Dense(2 * self.width, kernel_init=ZEROS, name="modulation")(embedded), 2, axis=-1)
        tokens = _modulate(tokens, shift, scale)
        features = self.outputs * x.shape[-1] * math.prod(patch)
        y = unpatchify(Dense(features, kernel_init=ZEROS, name="output")(tokens), patch, x.shape[1:3])
        return jnp.swapaxes(y[:, :, 0], 1, 2).reshape(x.shape[0], -1) if vector else y

    def _blocks(self, tokens: Float[Array, "B T C"], condition: Float[Array, "B E"]) -> Float[Array, "B T C"]:
        """All blocks as one scan, whose parameters lead with the depth: compiled once, whatever the depth.

        On CPU the scan is unrolled, which saves a fifth of a training step (depth 4 to 6, width 128 to 256).
        """
        block = nn.remat(Block, prevent_cse=False) if self.remat else Block
        scan = partial(
            nn.scan,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.depth,
            unroll=self.depth if jax.default_backend() == "cpu" else 1,
        )
        body = scan(lambda module, carry, _: (module(carry, condition), None))
        return body(block(self.heads, self.qk_norm, name="blocks"), tokens, None)[0]


def denoiser(section: Any, shape: tuple[int, ...], num_classes: int, outputs: int = 1, num_words: int = 0) -> nn.Module:
    """Builds the denoiser for grids of `shape` [h, w, c] or vectors [d].

    Raises `UserError` where the patch does not divide the shape, or the heads the width.
    """
    patch, width, heads = count(section, "patch"), count(section, "width"), count(section, "heads")
    if len(shape) not in (1, 3):
        raise UserError(f"model.net.name='dit' needs grids [h, w, c] or vectors [d], not {shape}.")
    if any(side % patch for side in shape[:2]):
        raise UserError(f"model.net.patch={patch} must divide the sides of what it denoises: {shape}.")
    if width % (2 * len(shape[:2])):
        raise UserError(f"model.net.width={width} must be a multiple of {2 * len(shape[:2])} for positions in {shape}.")
    check_heads(heads, (width,))
    depth = count(section, "depth")
    told = (num_classes, num_words, outputs, section.self_conditioning)
    return DiT(patch, width, depth, heads, section.qk_norm, section.remat, *told)
