"""Mean squared reconstruction error through the posterior mean."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from latent.evaluation_data import EvaluationData
from latent.metrics import passport
from latent.types import Batch, Context, Extra, Model, Params, State

needs = {"encode", "decode"}


def names(options: Any) -> tuple[str, ...]:
    """Names of the results."""
    return ("reconstruction_mse",)


def _squared_error(model: Model, params: Params, extra: Extra, batch: Batch, context: Context) -> Float[Array, "B"]:
    latent = model.encode(params, extra, batch["x"], context.keys("posterior"))
    error = (batch["x"] - model.decode(params, extra, latent.mean)) ** 2
    return jnp.mean(error.reshape(error.shape[0], -1), axis=1)


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Mean over examples of the squared error per value of x, decoded from the posterior mean."""
    errors = data.map(_squared_error, state)
    return [passport.mean("reconstruction_mse", errors, "per value", data.protocol)]
