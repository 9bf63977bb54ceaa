"""Observation models p(x | z): log-density and mean from a decoder's raw output, with the output bias to start at."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from latent.autoencoding import discretised
from latent.errors import UserError, unknown_name
from latent.types import DataSpec


class Likelihood(NamedTuple):
    """log_prob(output, x, log_scale) -> [B] nats, summed over an example; mean(output) -> x;
    draw(key, output [...], log_scale) -> x [...], of one example; the output bias at which an untrained decoder gives
    the mean training example, of the output's shape, which is that of x unless a value takes several numbers to
    describe; the initial log scale where it is learned; whether exp(log_prob) is the "mass" of discrete x, a
    "density", or "neither"."""

    log_prob: Callable[[Array, Array, Any], Float[Array, "B"]]
    mean: Callable[[Array], Array]
    draw: Callable[[Key[Array, ""], Array, Any], Array]
    output_bias: np.ndarray
    initial_log_scale: float | None
    measure: str = "density"


def _rows(output: Float[Array, "B ..."], x: Float[Array, "B ..."]) -> tuple[Float[Array, "B d"], Float[Array, "B d"]]:
    # Flat before anything is computed: on 2 CPU cores 12,800 images of [28, 28, 1] take 481 ms, as rows of 784 63 ms.
    return output.reshape(len(output), -1), x.reshape(len(x), -1)


def _bernoulli(output: Array, x: Array, log_scale: Any) -> Float[Array, "B"]:
    output, x = _rows(output, x)
    # x log p + (1 - x) log(1 - p) without forming p; x in [0, 1] makes it the soft-target cross entropy. The softplus
    # is spelled out: with its gradient this takes half the time of jax.nn.softplus on CPU.
    softplus = jnp.maximum(output, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(output)))
    return jnp.sum(x * output - softplus, axis=1)


def _gaussian(output: Array, x: Array, log_scale: Any) -> Float[Array, "B"]:
    output, x = _rows(output, x)
    standardised = (x - output) * jnp.exp(-log_scale)
    return jnp.sum(-0.5 * standardised**2 - log_scale - 0.5 * math.log(2 * math.pi), axis=1)


def _laplace(output: Array, x: Array, log_scale: Any) -> Float[Array, "B"]:
    output, x = _rows(output, x)
    return jnp.sum(-jnp.abs(x - output) * jnp.exp(-log_scale) - log_scale - math.log(2), axis=1)


def _coins(key: Key[Array, ""], output: Array, log_scale: Any) -> Array:
    return jnp.float32(jax.random.bernoulli(key, jax.nn.sigmoid(output)))


class Scaled(NamedTuple):
    """A density around a location, with a scale, and draws of it at location 0 and scale 1."""

    log_prob: Callable[[Array, Array, Any], Float[Array, "B"]]
    noise: Callable[..., Array]

    def draw(self, key: Key[Array, ""], output: Array, log_scale: Any) -> Array:
        return output + jnp.exp(log_scale) * self.noise(key, output.shape)


SCALED = {"gaussian": Scaled(_gaussian, jax.random.normal), "laplace": Scaled(_laplace, jax.random.laplace)}
"""Squared error and absolute error, normalised."""

DISCRETISED = ("discretised_logistic", "discretised_logistic_mixture")
"""Probabilities of 8-bit levels."""


def make(section: Any, spec: DataSpec) -> Likelihood:
    """Builds `model.likelihood`: "bernoulli" (x in [0, 1]), "gaussian" or "laplace" (fixed
    `model.observation_scale`), or these with "_learned" (one scale, trained; `observation_scale` is its start); for
    8-bit images "discretised_logistic" and "discretised_logistic_mixture" of `model.mixture_components`, which take
    every scale from the decoder."""
    name = section.likelihood
    if name == "bernoulli":
        if spec.support == "real":
            raise UserError(
                f"model.likelihood='bernoulli' needs x in [0, 1]; {spec.name} has real values (allowed: gaussian)."
            )
        mean = np.clip(spec.mean, 0.001, 0.999)  # as in Burda et al. 2016
        measure = "mass" if spec.support == "binary" else "neither"
        return Likelihood(_bernoulli, jax.nn.sigmoid, _coins, np.log(mean / (1 - mean)), None, measure)
    family, _, learned = name.partition("_")
    if family in SCALED and learned in ("", "learned"):
        if section.observation_scale <= 0:
            raise UserError(f"model.observation_scale={section.observation_scale} must be positive.")
        log_scale, density = math.log(section.observation_scale), SCALED[family]
        if learned:
            return Likelihood(density.log_prob, lambda output: output, density.draw, spec.mean, log_scale)
        fixed = lambda output, x, _: density.log_prob(output, x, log_scale)  # noqa: E731
        drawn = lambda key, output, _: density.draw(key, output, log_scale)  # noqa: E731
        return Likelihood(fixed, lambda output: output, drawn, spec.mean, None)
    if name in DISCRETISED:
        return _discretised(section, spec)
    allowed = ["bernoulli", *SCALED, *(f"{family}_learned" for family in SCALED), *DISCRETISED]
    raise unknown_name("model.likelihood", name, allowed)


def _discretised(section: Any, spec: DataSpec) -> Likelihood:
    name, scale = section.likelihood, section.observation_scale
    if not spec.levels:
        raise UserError(
            f"model.likelihood={name!r} needs 8-bit images as they are (data.binarise=none, data.dequantise=False); "
            f"{spec.name} gives other values."
        )
    if scale <= 0:
        raise UserError(f"model.observation_scale={scale} must be positive.")
    if name == "discretised_logistic":
        made = discretised.logistic(spec.mean, scale)
    elif section.mixture_components < 1:
        raise UserError(f"model.mixture_components={section.mixture_components} must be at least 1.")
    else:
        made = discretised.mixture(spec.mean, scale, section.mixture_components)
    log_prob = lambda output, x, _: made.log_prob(output, x)  # noqa: E731
    draw = lambda key, output, _: made.draw(key, output)  # noqa: E731
    return Likelihood(log_prob, made.mean, draw, made.output_bias, None, "mass")
