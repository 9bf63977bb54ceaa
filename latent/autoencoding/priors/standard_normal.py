"""p(z) = N(0, I)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from latent import rng
from latent.autoencoding.contract import Prior, flat
from latent.autoencoding.gaussian import kl_to_standard, log_normal


def prior(section: Any, latent_shape: tuple[int, ...], spec: Any, posterior: Any) -> Prior:
    """Reads nothing from the config."""
    return Prior(
        log_prob=lambda params, z: jnp.sum(flat(log_normal(z), 2), axis=-1),
        sample=lambda params, keys, temperature=1.0: temperature * rng.normal(keys, *latent_shape),
        kl=kl_to_standard,
    )
