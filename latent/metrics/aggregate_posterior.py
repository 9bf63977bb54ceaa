"""What a code tells of its example, and how far codes as a whole are from the prior.

Hoffman & Johnson 2016 ("ELBO surgery"): E KL(q(z|x) || p(z)) = I_q(x; z) + KL(q(z) || p(z)), with q(z) the mean of
q(z|x) over the examples. The first is the mutual information, the second the gap that samples from the prior suffer.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Array, Float
from scipy.special import logsumexp

from latent.evaluation_data import EvaluationData
from latent.metrics import passport
from latent.types import Batch, Context, Extra, Model, Params, State

needs = {"encode.log_scale", "encode.kl"}
CHUNK = 512
"""Examples whose densities under all posteriors are held at a time."""


def names(options: Any) -> tuple[str, ...]:
    """Names of the results."""
    passport.require_counts("aggregate_posterior", options, limit=0)
    return ("mutual_information", "aggregate_kl")


def information(
    mean: Float[np.ndarray, "N d"], log_scale: Float[np.ndarray, "N d"], z: Float[np.ndarray, "N d"]
) -> Float[np.ndarray, "N"]:
    """log q(z_i|x_i) - log q(z_i), nats, of draws z_i ~ q(z|x_i) = N(mean_i, exp(log_scale_i)^2); q(z) is their mean.

    Memory is bounded. How the others shape q(z) has no influence of first order, as every q(z|x) integrates to 1: the
    spread of these numbers is all there is to the standard error of their mean.
    """
    mean, log_scale, z = (np.asarray(values, np.float64) for values in (mean, log_scale, z))
    count, dimensions = mean.shape
    precision = np.exp(-2 * log_scale)
    constant = -np.sum(log_scale, axis=1) - 0.5 * np.sum(mean**2 * precision, axis=1)
    constant -= 0.5 * dimensions * math.log(2 * math.pi)
    gains = np.empty(count)
    for start in range(0, count, CHUNK):
        rows = z[start : start + CHUNK]
        # log N(z_i; j) for all i, j, the square multiplied out: two matrix products and no array [N, N, d].
        densities = constant + rows @ (mean * precision).T - 0.5 * (rows**2) @ precision.T
        marginal = logsumexp(densities, axis=1)
        places = np.arange(len(rows))
        gains[start : start + CHUNK] = densities[places, start + places] - marginal + math.log(count)
    return gains


def _posterior(
    model: Model, params: Params, extra: Extra, batch: Batch, context: Context
) -> tuple[Float[Array, "B d"], Float[Array, "B d"], Float[Array, "B d"], Float[Array, "B"]]:
    latent = model.encode(params, extra, batch["x"], context.keys("posterior"))
    flat = lambda values: values.reshape(values.shape[0], -1)  # noqa: E731
    return flat(latent.mean), flat(latent.info["log_scale"]), flat(latent.sample), flat(latent.info["kl"]).sum(axis=1)


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Both, in nats, over the first `options.limit` examples (0: all), one draw of z each.

    q(z) is the aggregate of these N examples: the information cannot exceed log N, and falls short where it comes near.
    """
    mean, log_scale, z, kl = data.map(_posterior, state, limit=options.limit)
    count = len(mean)
    if count < 2:
        return [passport.undefined(name, "an aggregate needs at least 2 examples") for name in names(options)]
    gains = information(mean, log_scale, z)
    protocol = data.protocol | {"samples": 1, "ceiling": math.log(count)}
    return [
        passport.mean(name, values, "nats", protocol)
        for name, values in zip(names(options), (gains, kl - gains), strict=True)
    ]
