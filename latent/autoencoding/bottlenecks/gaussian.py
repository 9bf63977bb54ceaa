"""q(z | x) = N(mean(x), exp(log_scale(x))^2), diagonal, reparameterised (Kingma & Welling 2014, arXiv 1312.6114)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from latent import rng
from latent.autoencoding.contract import Bottleneck, Code


def bottleneck(section: Any, latent_shape: tuple[int, ...]) -> Bottleneck:
    """Reads nothing from the config."""

    def encode(params: Any, extra: Any, heads: Any, keys: Any, num_samples: int) -> Code:
        mean, log_scale = heads["mean"], heads["log_scale"]
        noise = rng.normal(keys, num_samples, *latent_shape)
        return Code(mean, mean[:, None] + jnp.exp(log_scale)[:, None] * noise, log_scale, {}, {})

    return Bottleneck(("mean", "log_scale"), encode)
