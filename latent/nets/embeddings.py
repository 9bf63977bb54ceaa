"""What a denoiser is told besides its noisy input: time, label, its own previous estimate, and where a token sits."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from latent.nets.layers import Dense

MAX_PERIOD = 10_000.0
TIME_SCALE = 1000.0
"""Times in [0, 1] are embedded on the scale of the usual 1,000 discrete steps."""


def sinusoidal(positions: Float[Array, "*B"], size: int) -> Float[Array, "*B size"]:
    """[cos(p w_i), sin(p w_i)] with w_i = 10000^(-i / half), half = size // 2 (Vaswani et al. 2017, section 3.5).

    The order and the frequencies of the diffusion literature (Ho et al. 2020); an odd size ends with a zero.
    """
    half = size // 2
    frequencies = jnp.exp(-math.log(MAX_PERIOD) * jnp.arange(half) / max(half, 1))
    angles = positions[..., None] * frequencies
    parts = [jnp.cos(angles), jnp.sin(angles), jnp.zeros((*positions.shape, size % 2))]
    return jnp.concatenate(parts, axis=-1)


def grid_positions(grid: tuple[int, ...], width: int) -> np.ndarray:
    """Fixed embeddings [tokens, width] of the places in a grid, in row-major order.

    Each axis has an equal share of the width, a multiple of 2, in the form of `sinusoidal` (for two axes: the
    "2-D sin-cos" positions of He et al. 2022 and Peebles & Xie 2023).
    """
    half = width // (2 * len(grid))
    frequencies = MAX_PERIOD ** (-np.arange(half) / half)
    places = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), axis=-1).reshape(-1, len(grid))
    angles = places[..., None] * frequencies
    parts = np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)
    return parts.reshape(len(places), -1).astype(np.float32)


def with_previous(
    x: Float[Array, "B ... C"], previous: Float[Array, "B ... C"] | None, enabled: bool
) -> Float[Array, "B ... D"]:
    """Self-conditioning (Chen et al. 2022, section 3): x with the previous estimate, zeros at first, as more channels.

    Not enabled: x, and `previous` is ignored.
    """
    if not enabled:
        return x
    return jnp.concatenate([x, jnp.zeros_like(x) if previous is None else previous], axis=-1)


class Conditioning(nn.Module):
    """t [B] in [0, 1], label [B] or None -> [B, width]: an MLP of the sinusoidal time plus a row of the label table.

    The table has num_classes + 1 rows; the last one is the null token, which stands for no label: for None and for a
    negative label. A label of num_classes asks for it as well, a greater one gives NaN. With num_classes=0 there is
    no table and the label is ignored. Not `joined`: one token [B, 1, width] for the time and one for the label.
    """

    width: int
    frequencies: int
    num_classes: int
    kernel_init: Any = nn.initializers.lecun_normal()
    joined: bool = True

    @nn.compact
    def __call__(self, t: Float[Array, "B"], label: Int[Array, "B"] | None) -> Float[Array, "B ... width"]:
        embedding = sinusoidal(TIME_SCALE * t, self.frequencies)
        embedding = nn.silu(Dense(self.width, kernel_init=self.kernel_init, name="time_1")(embedding))
        embedding = Dense(self.width, kernel_init=self.kernel_init, name="time_2")(embedding)
        if not self.num_classes:
            return embedding if self.joined else embedding[:, None]
        if label is None:
            label = jnp.full(t.shape, self.num_classes)
        rows = jnp.where(label < 0, self.num_classes, label)
        table = nn.Embed(self.num_classes + 1, self.width, embedding_init=nn.initializers.normal(0.02), name="label")
        return embedding + table(rows) if self.joined else jnp.stack([embedding, table(rows)], axis=1)
