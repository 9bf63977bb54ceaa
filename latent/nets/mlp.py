"""Multilayer perceptrons: any example shape in, any out. Without hidden layers they are affine maps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from latent.errors import UserError, unknown_name
from latent.nets.layers import Dense

ACTIVATIONS = ("elu", "gelu", "leaky_relu", "relu", "sigmoid", "silu", "softplus", "tanh")


def activation(name: str, key: str) -> Callable[[Array], Array]:
    """The activation function that a config key names."""
    if name not in ACTIVATIONS:
        raise unknown_name(key, name, ACTIVATIONS)
    return getattr(nn, name)


def widths(section: Any, key: str) -> tuple[int, ...]:
    """The layer widths that `model.net.<key>` lists: positive integers."""
    found = tuple(section[key])
    if not all(isinstance(width, int) and width > 0 for width in found):
        raise UserError(f"model.net.{key}={found} must hold positive integers.")
    return found


def count(section: Any, key: str) -> int:
    """The positive integer that `model.net.<key>` holds."""
    found = section[key]
    if not isinstance(found, int) or found < 1:
        raise UserError(f"model.net.{key}={found} must be a positive integer.")
    return found


def constant(values: np.ndarray) -> Callable[..., Array]:
    """An initialiser that gives these values, in whatever shape is asked for."""
    return lambda key, shape, dtype=jnp.float32: jnp.asarray(values, dtype).reshape(shape)


def dense(features: int, **options: Any) -> Dense:
    """A dense layer with Glorot-uniform weights (Glorot & Bengio 2010)."""
    return Dense(features, kernel_init=nn.initializers.glorot_uniform(), **options)


class Encoder(nn.Module):
    """x [B, ...] -> one output [B, d] per name in `heads`, from a shared trunk."""

    hidden: tuple[int, ...]
    activation: Callable[[Array], Array]
    heads: tuple[tuple[str, int], ...]

    @nn.compact
    def __call__(self, x: Float[Array, "B ..."]) -> dict[str, Float[Array, "B _"]]:
        x = x.reshape(x.shape[0], -1)
        for width in self.hidden:
            x = self.activation(dense(width)(x))
        return {name: dense(size, name=name)(x) for name, size in self.heads}


class Decoder(nn.Module):
    """z [B, d] -> [B, *shape], with `output_bias` as the initialiser of the last bias."""

    hidden: tuple[int, ...]
    activation: Callable[[Array], Array]
    shape: tuple[int, ...]
    output_bias: Callable[..., Array]

    @nn.compact
    def __call__(self, z: Float[Array, "B d"]) -> Float[Array, "B ..."]:
        for width in self.hidden:
            z = self.activation(dense(width)(z))
        output = dense(math.prod(self.shape), name="output", bias_init=self.output_bias)
        return output(z).reshape(-1, *self.shape)


def encoder(section: Any, shape: tuple[int, ...], heads: tuple[tuple[str, int], ...]) -> nn.Module:
    """Builds the encoder from `section.hidden` and `section.activation`."""
    return Encoder(widths(section, "hidden"), activation(section.activation, "model.net.activation"), heads)


def decoder(section: Any, shape: tuple[int, ...], output_bias: np.ndarray) -> nn.Module:
    """Builds the mirror of the encoder."""
    hidden = widths(section, "hidden")[::-1]
    return Decoder(hidden, activation(section.activation, "model.net.activation"), shape, constant(output_bias))


def critic(section: Any, shape: tuple[int, ...], heads: tuple[tuple[str, int], ...] = (("score", 1),)) -> nn.Module:
    """Builds a critic: one linear output [B, d] per name in `heads`."""
    return encoder(section, shape, heads)


def generator(section: Any, shape: tuple[int, ...]) -> nn.Module:
    """Builds a generator z [B, d] -> [B, *shape]."""
    hidden = widths(section, "hidden")[::-1]
    function = activation(section.activation, "model.net.activation")
    return Decoder(hidden, function, shape, nn.initializers.zeros_init())


def latent_shape(section: Any, shape: tuple[int, ...], latent_dim: int) -> tuple[int, ...]:
    """The shape of one latent: a vector."""
    return (latent_dim,)
