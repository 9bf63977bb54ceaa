"""U-ViT (Bao et al. 2023, arXiv 2209.12152): a transformer with the long skips of a U-net, as a denoiser of grids.

A grid [h, w, c] is cut into squares of patch x patch pixels. They, the time, the label and the text are all tokens of
one plain transformer, whose layers on the way out take those of the way in beside their input. The keys it reads, with
sensible values for small latents:

    patch              2       pixels on a token's side; divides the grid's sides
    width              128     of a token: a multiple of heads
    depth              5       layers in all, an odd number: as many on the way in as on the way out, one between them
    heads              4       of each attention
    qk_norm            False   normalise queries and keys: for long trainings in low precision
    self_conditioning  False   take the previous estimate as further channels

The paper's sizes (depth, width, heads): S (13, 512, 8), M (17, 768, 12), L (21, 1024, 16), H (29, 1152, 16). Its
attention has no biases and its time token no perceptron; ours have both, and start at an output of 0.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent.errors import UserError
from latent.nets.attention import SelfAttention, check_heads
from latent.nets.conv import Conv
from latent.nets.dit import EXPANSION, FREQUENCIES, NORMAL, ZEROS, patchify, unpatchify
from latent.nets.embeddings import Conditioning, with_previous
from latent.nets.layers import wide
from latent.nets.mlp import count, dense
from latent.types import UNTOLD, Condition

Tokens = Float[Array, "B T C"]


def _normal(x: Tokens, name: str) -> Tokens:
    """Layer norm. To be called inside a module: it adds the layer `name` to it."""
    return nn.LayerNorm(epsilon=1e-5, name=name)(wide(x)).astype(x.dtype)


class Block(nn.Module):
    """x [B, T, C] -> [B, T, C]: attention, then a perceptron, each after a layer norm and beside an identity.

    A `skip` of x's shape comes in by a linear map of both (the paper's figure 2a).
    """

    heads: int
    qk_norm: bool

    @nn.compact
    def __call__(self, x: Tokens, skip: Tokens | None = None) -> Tokens:
        width = x.shape[-1]
        if skip is not None:
            x = dense(width, name="skip")(jnp.concatenate([x, skip], axis=-1))
        x = x + SelfAttention(self.heads, self.qk_norm, name="attention")(_normal(x, "norm_1"))
        y = dense(EXPANSION * width, name="expand")(_normal(x, "norm_2"))
        return x + dense(width, name="contract")(nn.gelu(wide(y), approximate=False).astype(y.dtype))


class UViT(nn.Module):
    """x [B, h, w, c], t [B] in [0, 1], a condition, previous estimate like x or None -> [B, h, w, outputs * c].

    Initially 0.
    """

    patch: int
    width: int
    depth: int
    heads: int
    qk_norm: bool
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
        patch = (self.patch, self.patch)
        sizes = (self.width, FREQUENCIES, self.num_classes, self.num_words)
        told = Conditioning(*sizes, NORMAL, joined=False)(t, condition)
        pieces = dense(self.width, name="input")(patchify(with_previous(x, previous, self.self_conditioning), patch))
        tokens = jnp.concatenate([told, pieces], axis=1)
        tokens = (wide(tokens) + self.param("positions", NORMAL, tokens.shape[1:])).astype(pieces.dtype)
        tokens, kept = self._way("in", self.depth // 2)(tokens, None)
        tokens = Block(self.heads, self.qk_norm, name="middle")(tokens)
        tokens, _ = self._way("out", self.depth // 2)(tokens, kept[::-1])
        tokens = _normal(tokens[:, told.shape[1] :], "norm")
        features = self.outputs * x.shape[-1]
        y = unpatchify(dense(features * self.patch**2, name="pieces")(tokens), patch, x.shape[1:3])
        return Conv(features, (3, 3), kernel_init=ZEROS, name="output")(y)

    def _way(self, name: str, length: int) -> Any:
        """(tokens, skips or None) -> (tokens, every layer's output): the layers of one way as one scan, unrolled on CPU
        as in dit.py."""
        scan = partial(
            nn.scan,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=length,
            unroll=length if jax.default_backend() == "cpu" else 1,
        )

        def layer(module: Block, tokens: Tokens, skip: Tokens | None) -> tuple[Tokens, Tokens]:
            tokens = module(tokens, skip)
            return tokens, tokens

        return partial(scan(layer), Block(self.heads, self.qk_norm, name=name))


def denoiser(section: Any, shape: tuple[int, ...], num_classes: int, outputs: int = 1, num_words: int = 0) -> nn.Module:
    """Builds the denoiser for grids of `shape` [h, w, c].

    Raises `UserError` for other shapes, a patch that does not divide them, heads that do not divide the width, and an
    even or too small depth.
    """
    patch, width, heads = count(section, "patch"), count(section, "width"), count(section, "heads")
    depth = count(section, "depth")
    if len(shape) != 3:
        raise UserError(f"model.net.name='uvit' needs grids [h, w, c], not {shape}: choose residual_mlp for vectors.")
    if any(side % patch for side in shape[:2]):
        raise UserError(f"model.net.patch={patch} must divide the sides of what it denoises: {shape}.")
    if depth < 3 or depth % 2 == 0:
        raise UserError(f"model.net.depth={depth} must be odd and at least 3 of model.net.name='uvit'.")
    check_heads(heads, (width,))
    told = (num_classes, num_words, outputs, section.self_conditioning)
    return UViT(patch, width, depth, heads, section.qk_norm, *told)
