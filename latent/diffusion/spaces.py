"""The space that is diffused in: pixels, or the latents of an autoencoder that another run trained.

A latent is normalised with the statistics that its run handed over; there is no scale factor to set by hand. Knows no
path, no net and no sampler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from latent import config, rng
from latent.errors import unknown_name
from latent.first_stage import FIRST_STAGE, check_shape
from latent.types import Batch, Codes, DataSpec, Extra, Latent, Params

LATENTS = ("sample", "mean")
"""What of a posterior is diffused: a draw, a new one at every use, or its mean."""


class Space(NamedTuple):
    """x -> z of about unit variance, and back.

    encode      (params, extra, x, keys [B]) -> z [B, *shape]
    decode      (params, extra, z) -> x
    init        (key, batch) -> the components of params and extra that it needs
    sample_prior  (params, extra, keys [N]) -> x of the first stage's own prior; None where it has none
    codes       what of x may be computed once; None where encoding costs nothing
    from_codes  (codes, keys [B]) -> the z that `encode` gives with these keys
    """

    shape: tuple[int, ...]
    encode: Callable[[Params, Extra, Array, Key[Array, "B"]], Array]
    decode: Callable[[Params, Extra, Array], Array]
    init: Callable[[Key[Array, ""], Batch], tuple[Params, Extra]]
    sample_prior: Callable[..., Array] | None = None
    codes: Codes | None = None
    from_codes: Callable[[Array, Key[Array, "B"]], Array] | None = None


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


def latents(described: config.Section, spec: DataSpec, chosen: str = "sample") -> Space:
    """The codes of the autoencoder that `model.first_stage_run` describes, normalised channel by channel with the
    statistics of its draws: `chosen` of its posterior, one of `LATENTS`."""
    if chosen not in LATENTS:
        raise unknown_name("model.latents", chosen, LATENTS)
    check_shape(FIRST_STAGE, described, spec.shape)
    build_model = config.select("latent.models", described.model.name, "build", "model.first_stage")
    model = build_model(config.Section(described.model.plain()), spec)
    statistics = described.statistics
    mean, std = jnp.asarray(statistics.mean, jnp.float32), jnp.asarray(statistics.std, jnp.float32)
    std = jnp.where(std > 0, std, 1.0)  # of a channel that a deterministic encoder never moves

    def encode(params: Params, extra: Extra, x: Float[Array, "B ..."], keys: Key[Array, "B"]) -> Float[Array, "B ..."]:
        latent = model.encode(params[FIRST_STAGE], extra[FIRST_STAGE], x, keys)
        return ((latent.sample if chosen == "sample" else latent.mean) - mean) / std

    def stored(params: Params, extra: Extra, x: Float[Array, "B ..."]) -> Float[Array, "B parts ..."]:
        """The mean, and of a Gaussian posterior that is drawn from the log scale; not normalised, so that their draws
        round as the first stage's own."""
        keys = jax.random.split(jax.random.key(0), len(x))
        latent = model.encode(params[FIRST_STAGE], extra[FIRST_STAGE], x, keys)
        return jnp.stack([latent.mean, *_log_scale(latent, chosen)], axis=1)

    def from_codes(codes: Float[Array, "B parts ..."], keys: Key[Array, "B"]) -> Float[Array, "B ..."]:
        z = codes[:, 0]
        if codes.shape[1] > 1:
            z = z + jnp.exp(codes[:, 1]) * rng.normal(keys, 1, *z.shape[1:])[:, 0]  # as bottlenecks/gaussian.py draws
        return (z - mean) / std

    def decode(params: Params, extra: Extra, z: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
        return model.decode(params[FIRST_STAGE], extra[FIRST_STAGE], z * std + mean)

    def sample_prior(params: Params, extra: Extra, keys: Key[Array, "N"], condition: None = None) -> Array:
        return model.sample(params[FIRST_STAGE], extra[FIRST_STAGE], keys, condition)

    def init(key: Key[Array, ""], batch: Batch) -> tuple[Params, Extra]:
        params, extra = model.init(key, batch)
        return {FIRST_STAGE: params}, {FIRST_STAGE: extra}

    identity = {"first_stage": described.sha256, "model": described.model.plain(), "latents": chosen}
    prior = None if model.sample is None else sample_prior
    return Space(tuple(statistics.shape), encode, decode, init, prior, Codes(stored, identity), from_codes)


def _log_scale(latent: Latent, chosen: str) -> tuple[Array, ...]:
    return (latent.info["log_scale"],) if chosen == "sample" and "log_scale" in latent.info else ()
