"""How much of a codebook is in use: perplexity and the number of codes seen, over a split."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Array, Int

from latent.evaluation_data import EvaluationData
from latent.metrics import passport
from latent.types import Batch, Context, Extra, Model, Params, State

needs = {"encode", "encode.indices"}


def names(options: Any) -> tuple[str, ...]:
    """Names of the results."""
    return ("codebook_perplexity", "codebook_used")


def _indices(model: Model, params: Params, extra: Extra, batch: Batch, context: Context) -> Int[Array, "B T"]:
    return model.encode(params, extra, batch["x"], context.keys("posterior")).info["indices"]


def _perplexity(counts: np.ndarray) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(np.exp(-np.sum(share * np.log(share))))


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """exp(entropy) of the codes' use over the split, and how many codes are used at all.

    The standard error is the bootstrap's, over 50 resamplings of the examples.
    """
    indices = data.map(_indices, state)
    size = int(indices.max()) + 1
    generator = np.random.default_rng(0)
    resampled = []
    for _ in range(50):
        rows = generator.integers(0, len(indices), len(indices))
        counts = np.bincount(indices[rows].ravel(), minlength=size)
        resampled.append((_perplexity(counts), np.sum(counts > 0)))
    counts = np.bincount(indices.ravel(), minlength=size)
    values = (_perplexity(counts), float(np.sum(counts > 0)))
    errors = np.std(resampled, axis=0)
    protocol = data.protocol | {"N": len(indices)}
    return [
        passport.Result(name, value, float(error), "codes", protocol)
        for name, value, error in zip(names(options), values, errors, strict=True)
    ]
