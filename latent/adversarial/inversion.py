"""Codes of given images under a generator without an encoder: optimisation of z from several starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Key

from latent.loops import rollable
from latent.types import Latent


class Inversion(NamedTuple):
    """How long to search: `restarts` starts per image, `steps` updates of Adam with `learning_rate`."""

    steps: int
    restarts: int
    learning_rate: float


def invert(
    generate: Callable[[Float[Array, "B d"]], Float[Array, "B ..."]],
    x: Float[Array, "B ..."],
    keys: Key[Array, "B"],
    latent_dim: int,
    settings: Inversion,
) -> Latent:
    """For every image the code whose image is nearest in squared error, of `restarts` searches from the prior.

    The codes of different images and of different starts never meet: the result is a function of the image and its
    key (Creswell & Bharath 2016, arXiv 1611.05644, without a prior on z). `info["squared_error"]` [B] is the error of
    the code found, a mean over the values of x.
    """
    count, restarts = x.shape[0], settings.restarts
    starts = jax.vmap(lambda key: jax.random.normal(key, (restarts, latent_dim)))(keys)
    targets = jnp.repeat(x, restarts, axis=0)
    adam = optax.scale_by_adam()

    def errors(z: Float[Array, "R d"]) -> Float[Array, "R"]:
        return jnp.mean((generate(z) - targets).reshape(len(targets), -1) ** 2, axis=1)

    def update(carry: tuple, _: None) -> tuple[tuple, None]:
        z, state = carry
        direction, state = adam.update(jax.grad(lambda codes: jnp.sum(errors(codes)))(z), state)
        return (z - settings.learning_rate * direction, state), None

    z = starts.reshape(count * restarts, latent_dim)
    # Unrolled steps cost compilation time: keep them few where the generator has convolutions.
    unroll = 1 if rollable(errors, z) else settings.steps
    (z, _), _ = lax.scan(update, (z, adam.init(z)), length=settings.steps, unroll=unroll)
    found = errors(z).reshape(count, restarts)
    best = jnp.argmin(found, axis=1)
    pick = lambda values: values[jnp.arange(count), best]  # noqa: E731
    code = pick(z.reshape(count, restarts, latent_dim))
    return Latent(code, code, {"squared_error": pick(found)})
