"""Logistics and mixtures of them over the 256 levels of an 8-bit image, as probabilities: their bits are of pixels.

A value x = level / 255 has the logistic's probability of [x - 1/510, x + 1/510]; the first and the last level take the
tails (Kingma et al. 2016, arXiv 1606.04934, appendix; Salimans et al. 2017, arXiv 1701.05517, eq. 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

HALF = 1.0 / 510.0
"""Half of the distance of two levels."""

SMALLEST = -7.0 - math.log(2.0)
"""Log scales below it count as it (Salimans et al.'s -7, whose pixels are in [-1, 1]): a bin of certainty."""


def log_probability(
    x: Float[Array, "*any"], location: Float[Array, "*any"], log_scale: Float[Array, "*any"]
) -> Float[Array, "*any"]:
    """log P(x) of levels x in {0, 1/255, ..., 1}, nats.

    sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)): every factor has a log that is exact wherever the
    bin lies, and each tail is one factor less.
    """
    inverse = jnp.exp(-jnp.maximum(log_scale, SMALLEST))
    above, below = (x + HALF - location) * inverse, (x - HALF - location) * inverse
    first, last = x < HALF, x > 1.0 - HALF
    log_prob = jnp.where(last, 0.0, jax.nn.log_sigmoid(above)) + jnp.where(first, 0.0, jax.nn.log_sigmoid(-below))
    return log_prob + jnp.where(first | last, 0.0, jnp.log(-jnp.expm1(-2.0 * HALF * inverse)))


def draw_level(
    key: Key[Array, ""], location: Float[Array, "*any"], log_scale: Float[Array, "*any"]
) -> Float[Array, "*any"]:
    """Levels in {0, 1/255, ..., 1} with the probabilities of `log_probability`: a logistic, rounded and cut."""
    scale = jnp.exp(jnp.maximum(log_scale, SMALLEST))
    value = location + scale * jax.random.logistic(key, location.shape)
    return jnp.clip(jnp.round(255.0 * value), 0.0, 255.0) / 255.0


class Discretised(NamedTuple):
    """log_prob(output, x) -> [B] nats, summed over an example; mean(output) -> x; draw(key, output [...]) -> x [...],
    of one example; the output bias to start at, whose shape is that of the decoder's output."""

    log_prob: Callable[[Array, Array], Float[Array, "B"]]
    mean: Callable[[Array], Array]
    draw: Callable[[Key[Array, ""], Array], Array]
    output_bias: np.ndarray


def logistic(mean: np.ndarray, scale: float) -> Discretised:
    """One logistic a value, location and log scale from the decoder: its output has twice the channels of x.

    The mean is that of the logistic itself, cut to [0, 1]. It starts at `mean` and `scale`.
    """

    def log_prob(output: Float[Array, "B *h D"], x: Float[Array, "B *h C"]) -> Float[Array, "B"]:
        location, log_scale = jnp.split(output, 2, axis=-1)
        return log_probability(x, location, log_scale).reshape(len(x), -1).sum(axis=1)

    def expected(output: Float[Array, "B *h D"]) -> Float[Array, "B *h C"]:
        return jnp.clip(jnp.split(output, 2, axis=-1)[0], 0.0, 1.0)

    def draw(key: Key[Array, ""], output: Float[Array, "*h D"]) -> Float[Array, "*h C"]:
        return draw_level(key, *jnp.split(output, 2, axis=-1))

    bias = np.concatenate([mean, np.full_like(mean, math.log(scale))], axis=-1, dtype=np.float32)
    return Discretised(log_prob, expected, draw, bias)


class Components(NamedTuple):
    """The parts of a mixture's output: K components of C channels, and what ties channels together."""

    logits: Float[Array, "*p K"]
    locations: Float[Array, "*p K C"]
    log_scales: Float[Array, "*p K C"]
    couplings: Float[Array, "*p K C C"]


def components(output: Float[Array, "*p D"], channels: int) -> Components:
    """Takes a mixture's output apart; couplings are strictly lower triangular, in (-1, 1)."""
    rows, columns = np.tril_indices(channels, -1)
    each = output.reshape(*output.shape[:-1], -1, 1 + 2 * channels + len(rows))
    places = [1, 1 + channels, 1 + 2 * channels]
    logits, locations, log_scales, couplings = jnp.split(each, places, axis=-1)
    matrix = jnp.zeros((*each.shape[:-1], channels, channels), output.dtype)
    return Components(logits[..., 0], locations, log_scales, matrix.at[..., rows, columns].set(jnp.tanh(couplings)))


def mixture(mean: np.ndarray, scale: float, count: int) -> Discretised:
    """`count` components a pixel, shared by its channels (Salimans et al. 2017, section 2.2): a channel's location adds
    a linear function of the true channels before it, eq. 3. The output has count * (1 + 2 C + C (C - 1) / 2) channels.

    The mean is that of the mixture itself, cut to [0, 1]. It starts at `mean`, the components a `scale` apart.
    """
    channels = mean.shape[-1]

    def log_prob(output: Float[Array, "B *h D"], x: Float[Array, "B *h C"]) -> Float[Array, "B"]:
        found = components(output, channels)
        x = jnp.broadcast_to(x[..., None, :], found.locations.shape)
        locations = found.locations + jnp.sum(found.couplings * x[..., None, :], axis=-1)
        each = jnp.sum(log_probability(x, locations, found.log_scales), axis=-1)
        pixels = jax.nn.logsumexp(jax.nn.log_softmax(found.logits) + each, axis=-1)
        return pixels.reshape(len(pixels), -1).sum(axis=1)

    def expected(output: Float[Array, "B *h D"]) -> Float[Array, "B *h C"]:
        found = components(output, channels)
        means: list[Array] = []
        for channel in range(channels):  # a mean of the channels before it gives the mean of the next
            before = sum(found.couplings[..., channel, j] * means[j] for j in range(channel))
            means.append(found.locations[..., channel] + before)
        weighted = jax.nn.softmax(found.logits)[..., None] * jnp.stack(means, axis=-1)
        return jnp.clip(jnp.sum(weighted, axis=-2), 0.0, 1.0)

    def draw(key: Key[Array, ""], output: Float[Array, "*h D"]) -> Float[Array, "*h C"]:
        found = components(output, channels)
        which, *keys = jax.random.split(key, 1 + channels)
        chosen = jax.random.categorical(which, found.logits)[..., None]
        pick = lambda values: jnp.take_along_axis(values, chosen, axis=-1)[..., 0]  # noqa: E731
        drawn: list[Array] = []
        for channel in range(channels):
            before = sum(pick(found.couplings[..., channel, j]) * drawn[j] for j in range(channel))
            location = pick(found.locations[..., channel]) + before
            drawn.append(draw_level(keys[channel], location, pick(found.log_scales[..., channel])))
        return jnp.stack(drawn, axis=-1)

    spread = scale * (np.arange(count) - 0.5 * (count - 1))
    bias = np.zeros((*mean.shape[:-1], count, 1 + 2 * channels + channels * (channels - 1) // 2), np.float32)
    bias[..., 1 : 1 + channels] = mean[..., None, :] + spread[:, None]
    bias[..., 1 + channels : 1 + 2 * channels] = math.log(scale)
    return Discretised(log_prob, expected, draw, bias.reshape(*mean.shape[:-1], -1))
