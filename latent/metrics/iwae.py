"""The importance-weighted bound on log p(x) (Burda et al. 2016, arXiv 1509.00519, eq. 8), k up to thousands."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from latent import rng
from latent.errors import UserError
from latent.evaluation_data import EvaluationData
from latent.metrics import passport
from latent.types import Batch, Context, Extra, Model, Params, State

needs = {"log_weights"}


def names(options: Any) -> tuple[str, ...]:
    """Names of the results; UserError for options that make no sense."""
    passport.require_counts("iwae", options, num_samples=1, chunk=1, limit=0)
    if options.num_samples % min(options.chunk, options.num_samples):
        raise UserError(f"iwae.num_samples={options.num_samples} must be a multiple of iwae.chunk={options.chunk}.")
    return (f"iwae_{options.num_samples}",)


def _log_sum(
    model: Model,
    params: Params,
    extra: Extra,
    batch: Batch,
    context: Context,
    chunk: Int[Array, ""],
    num_samples: int,
) -> Float[Array, "B"]:
    context = context._replace(keys=rng.fold_stream(context.keys, chunk))
    return jax.nn.logsumexp(model.log_weights(params, extra, batch, context, num_samples), axis=0)


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Mean over examples of log 1/k sum_k w_k, nats.

    `options.num_samples` is k; `options.chunk` samples are held at a time, so memory does not grow with k;
    `options.limit` examples of the split are used (0: all).
    """
    num_samples, limit = options.num_samples, options.limit
    chunk = min(options.chunk, num_samples)
    chunks = [np.int32(number) for number in range(num_samples // chunk)]
    sums = data.map(_log_sum, state, repeat=chunks, limit=limit, num_samples=chunk)
    bound = np.logaddexp.reduce(sums.astype(np.float64), axis=0) - math.log(num_samples)
    protocol = data.protocol | {"samples": num_samples, "chunk": chunk}
    return [passport.mean(names(options)[0], bound, "nats", protocol)]
