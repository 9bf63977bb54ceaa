"""What a denoiser is told besides its noisy input: time, label, text, its previous estimate, and where a token sits.

The one file that looks inside a `Condition`; nets and samplers hand it on.
"""

from __future__ import annotations

import functools
import math
import operator
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from latent.nets.layers import Dense
from latent.types import UNTOLD, Condition

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


def _perceptron(x: Float[Array, "B _"], width: int, kernel_init: Any, name: str) -> Float[Array, "B width"]:
    """Two layers; to be called inside a module: it adds the dense layers `name`_1 and `name`_2 to it."""
    hidden = nn.silu(Dense(width, kernel_init=kernel_init, name=f"{name}_1")(x))
    return Dense(width, kernel_init=kernel_init, name=f"{name}_2")(hidden)


class Words(nn.Module):
    """text [B, T] -> [B, width]: the mean of the rows of its words, in whatever order; a negative number is no word.

    The table has num_words + 1 rows; the last one is the null text, which stands for a text without words. A number of
    num_words asks for it as well, a greater one gives NaN.
    """

    width: int
    num_words: int

    @nn.compact
    def __call__(self, text: Int[Array, "B T"]) -> Float[Array, "B width"]:
        # Rows of unit variance, as the sinusoids of a time: what comes next is the perceptron that times go through.
        table = nn.Embed(self.num_words + 1, self.width, embedding_init=nn.initializers.normal(1.0), name="table")
        known = text >= 0
        count = jnp.sum(known, axis=1, keepdims=True)
        rows = jnp.where(known[..., None], table(jnp.where(known, text, self.num_words)), 0.0)
        return jnp.where(count > 0, jnp.sum(rows, axis=1) / jnp.maximum(count, 1), table(jnp.asarray(self.num_words)))


class Conditioning(nn.Module):
    """t [B] in [0, 1] and a condition -> [B, width]: an MLP of the sinusoidal time, plus a row of the label table, plus
    an MLP of the mean of the text's words (`Words`).

    The label table has num_classes + 1 rows; the last one is the null token, which stands for no label: for None and
    for a negative label. A label of num_classes asks for it as well, a greater one gives NaN. No text is a text without
    words. With num_classes=0 there is no table and the label is ignored; with num_words=0 the same goes for the text.
    Not `joined`: one token [B, 1, width] for the time, one for the label and one for the text.
    """

    width: int
    frequencies: int
    num_classes: int
    num_words: int = 0
    kernel_init: Any = nn.initializers.lecun_normal()
    joined: bool = True

    @nn.compact
    def __call__(self, t: Float[Array, "B"], condition: Condition = UNTOLD) -> Float[Array, "B ... width"]:
        told = [_perceptron(sinusoidal(TIME_SCALE * t, self.frequencies), self.width, self.kernel_init, "time")]
        if self.num_classes:
            label = jnp.full(t.shape, self.num_classes) if condition.label is None else condition.label
            rows = jnp.where(label < 0, self.num_classes, label)
            normal = nn.initializers.normal(0.02)
            told.append(nn.Embed(self.num_classes + 1, self.width, embedding_init=normal, name="label")(rows))
        if self.num_words:
            text = jnp.full((*t.shape, 1), -1) if condition.text is None else condition.text
            mean = Words(self.width, self.num_words, name="words")(text)
            told.append(_perceptron(mean, self.width, self.kernel_init, "text"))
        return functools.reduce(operator.add, told) if self.joined else jnp.stack(told, axis=1)
