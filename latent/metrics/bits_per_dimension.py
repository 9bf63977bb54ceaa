"""The bound on log p(x) as the bits that a lossless code would spend on each value of x."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from latent.diffusion.likelihood import bits_per_dim
from latent.evaluation_data import EvaluationData
from latent.metrics import passport
from latent.types import Model, State

needs = {"terms.elbo"}
LEVELS = 256


def names(options: Any) -> tuple[str, ...]:
    """Names of the results."""
    return ("bits_per_dim",)


def bin_width(measure: str, preprocessing: dict[str, Any]) -> float | str:
    """The width in x of one value of the data that exp(bound) speaks of, or why it speaks of none.

    A probability of discrete data needs no width; a density bounds the probability of a pixel's level if uniform noise
    of the level's width was added to it (Theis et al. 2016, arXiv 1511.01844, eq. 6).
    """
    if measure == "mass":
        return 1.0
    if measure == "neither":
        return "the likelihood of these values is no normalised distribution over them (soft targets)"
    if not preprocessing.get("dequantise"):
        return "a density at discrete values has no bits: data.dequantise=True, or a likelihood of discrete data"
    return 1.0 / LEVELS


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Mean over examples of -log2 of the single-sample ELBO a value of x: an upper bound."""
    width = bin_width(model.measure, data.protocol.get("preprocessing", {}))
    if isinstance(width, str):
        return [passport.undefined("bits_per_dim", width)]
    bits = bits_per_dim(jnp.asarray(data.terms(state)["elbo"]), data.batch(1)["x"].shape[1:], width)
    return [passport.mean("bits_per_dim", np.asarray(bits), "bits per value", data.protocol | {"samples": 1})]
