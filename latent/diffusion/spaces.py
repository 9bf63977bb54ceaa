"""The space that is diffused in: pixels, or the latents of an autoencoder that another run trained.

A latent is normalised with the statistics that its run handed over; there is no scale factor to set by hand. Knows no
path, no net and no sampler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from latent import config
from latent.first_stage import FIRST_STAGE, check_shape
from latent.types import Batch, DataSpec, Extra, Params


class Space(NamedTuple):
    """x -> z of about unit variance, and back.

    encode  (params, extra, x, keys [B]) -> z [B, *shape]
    decode  (params, extra, z) -> x
    init    (key, batch) -> the components of params and extra that it needs
    """

    shape: tuple[int, ...]
    encode: Callable[[Params, Extra, Array, Key[Array, "B"]], Array]
    decode: Callable[[Params, Extra, Array], Array]
    init: Callable[[Key[Array, ""], Batch], tuple[Params, Extra]]


def pixels(spec: DataSpec) -> Space:
    """The identity, from [0, 1] to [-1, 1] where data are bounded."""
    if spec.support == "real":
        same = lambda params, extra, x, *keys: x  # noqa: E731
        return Space(spec.shape, same, same, lambda key, batch: ({}, {}))
    return Space(
        spec.shape,
        lambda params, extra, x, keys: 2.0 * x - 1.0,
        lambda params, extra, z: jnp.clip(0.5 * (z + 1.0), 0.0, 1.0),
        lambda key, batch: ({}, {}),
    )


def latents(described: config.Section, spec: DataSpec) -> Space:
    """The codes of the autoencoder that `model.first_stage_run` describes, normalised channel by channel."""
    check_shape(FIRST_STAGE, described, spec.shape)
    build_model = config.select("latent.models", described.model.name, "build", "model.first_stage")
    model = build_model(config.Section(described.model.plain()), spec)
    statistics = described.statistics
    mean, std = jnp.asarray(statistics.mean, jnp.float32), jnp.asarray(statistics.std, jnp.float32)

    def encode(params: Params, extra: Extra, x: Float[Array, "B ..."], keys: Key[Array, "B"]) -> Float[Array, "B ..."]:
        return (model.encode(params[FIRST_STAGE], extra[FIRST_STAGE], x, keys).sample - mean) / std

    def decode(params: Params, extra: Extra, z: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
        return model.decode(params[FIRST_STAGE], extra[FIRST_STAGE], z * std + mean)

    def init(key: Key[Array, ""], batch: Batch) -> tuple[Params, Extra]:
        params, extra = model.init(key, batch)
        return {FIRST_STAGE: params}, {FIRST_STAGE: extra}

    return Space(tuple(statistics.shape), encode, decode, init)
