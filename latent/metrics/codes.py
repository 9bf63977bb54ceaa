"""The code that an example is judged by, its posterior mean as a vector, and what is decoded from it. No metric
itself."""

from __future__ import annotations

from jaxtyping import Array, Float

from latent.types import Batch, Context, Extra, Model, Params


def posterior_mean(model: Model, params: Params, extra: Extra, batch: Batch, context: Context) -> Float[Array, "B d"]:
    """The encoder's mean, spatial latents flattened."""
    latent = model.encode(params, extra, batch["x"], context.keys("posterior"))
    return latent.mean.reshape(latent.mean.shape[0], -1)


def reconstruction(model: Model, params: Params, extra: Extra, batch: Batch, context: Context) -> Float[Array, "B ..."]:
    """x, decoded from the encoder's mean."""
    latent = model.encode(params, extra, batch["x"], context.keys("posterior"))
    return model.decode(params, extra, latent.mean)
