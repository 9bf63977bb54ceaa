"""The VampPrior: p(z) = 1/C sum_c q(z | u_c) with trained pseudo-inputs u_c (Tomczak & Welling 2018, 1705.07120)."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from latent.autoencoding.contract import Prior
from latent.autoencoding.priors.mixture import COMPONENT, count, of_components
from latent.types import Params

SPREAD = 0.05
"""Standard deviation of the initial pseudo-inputs around the mean training example."""


def prior(section: Any, latent_shape: tuple[int, ...], spec: Any, posterior: Any) -> Prior:
    """Reads `model.prior_components`. `posterior` is (params, x) -> (mean, log_scale)."""
    number = count(section)

    def init(key: Key[Array, ""]) -> Params:
        return {COMPONENT: {"inputs": spec.mean + SPREAD * jax.random.normal(key, (number, *spec.shape))}}

    def components(params: Params) -> tuple[Array, Array, Array]:
        inputs = params[COMPONENT]["inputs"]
        mean, log_scale = posterior(params, inputs if spec.support == "real" else jnp.clip(inputs, 0.0, 1.0))
        return jnp.full(number, -math.log(number)), mean, log_scale

    return of_components(components, init)
