"""Finite scalar quantisation: every channel is bounded and rounded to a few levels (Mentzer et al. 2024, 2309.15505).

There is no codebook to train and nothing to collapse: the codes are the points of a fixed grid in [-1, 1].
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from latent.autoencoding.bottlenecks.vq import perplexity
from latent.autoencoding.contract import Bottleneck, Code
from latent.errors import UserError

MARGIN = 1e-3
"""By how much the bound overshoots the outermost level, so that it can be reached."""


def bound(z: Float[Array, "... d"], levels: Int[np.ndarray, "d"]) -> Float[Array, "... d"]:
    """Squashes channel j into an interval that rounds to exactly levels[j] integers (Mentzer et al. 2024, section 3.1);
    an even number of levels is reached by a shift of one half."""
    half = (levels - 1) * (1 + MARGIN) / 2
    offset = np.where(levels % 2 == 0, 0.5, 0.0)
    return jnp.tanh(z + np.arctanh(offset / half)) * half - offset


def quantise(z: Float[Array, "... d"], levels: Int[np.ndarray, "d"]) -> Float[Array, "... d"]:
    """The grid point of z in [-1, 1]; gradients pass as if nothing had been rounded."""
    bounded = bound(z, levels)
    rounded = bounded + jax.lax.stop_gradient(jnp.round(bounded) - bounded)
    return rounded / (levels // 2)


def indices(codes: Float[Array, "... d"], levels: Int[np.ndarray, "d"]) -> Int[Array, "..."]:
    """The number of every code, 0 to prod(levels) - 1, in mixed radix; the first channel counts fastest."""
    digits = jnp.round(codes * (levels // 2)) + levels // 2
    places = np.cumprod(np.concatenate([[1], levels[:-1]]))
    return jnp.sum(digits * places, axis=-1).astype(jnp.int32)


def bottleneck(section: Any, latent_shape: tuple[int, ...]) -> Bottleneck:
    """Reads `model.levels`: the levels of every channel of a code. A latent with more channels holds several codes."""
    levels = tuple(section.levels)
    if not levels or not all(isinstance(level, int) and level > 1 for level in levels):
        raise UserError(f"model.levels={levels} must hold integers of at least 2.")
    if latent_shape[-1] % len(levels):
        raise UserError(
            f"model.levels={levels} has {len(levels)} channels; model.latent_dim={latent_shape[-1]} is not a multiple."
        )
    if math.prod(levels) > 2**20:
        raise UserError(f"model.levels={levels} make {math.prod(levels)} codes; at most {2**20} are allowed.")
    radix = np.array(levels)
    grouped = (*latent_shape[:-1], latent_shape[-1] // len(levels), len(levels))

    def encode(params: Any, extra: Any, heads: Any, keys: Any, num_samples: int) -> Code:
        raw = heads["code"].reshape(-1, *grouped)
        codes = quantise(raw, radix)
        z = codes.reshape(heads["code"].shape)
        return Code(z, z[:, None], None, {}, {"indices": indices(codes, radix).reshape(len(z), -1)})

    def learn(extra: Any, code: Code, context: Any) -> tuple[Any, dict[str, Array]]:
        return extra, {"perplexity": perplexity(code.info["indices"], math.prod(levels), context)}

    def snap(params: Any, extra: Any, z: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
        grid = jnp.clip(z.reshape(-1, *grouped), -1.0, 1.0) * (radix // 2)
        return (jnp.clip(jnp.round(grid), -(radix // 2), (radix - 1) // 2) / (radix // 2)).reshape(z.shape)

    return Bottleneck(("code",), encode, learn=learn, snap=snap)
