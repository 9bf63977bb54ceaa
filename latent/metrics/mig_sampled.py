"""Mutual information gap (Chen et al. 2018, arXiv 1802.04942, eq. 6) of posterior samples, by exact densities."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from latent.autoencoding.gaussian import log_normal
from latent.evaluation_data import EvaluationData
from latent.metrics import passport
from latent.metrics.histograms import top_gap
from latent.types import Batch, Context, Extra, Model, Params, State

needs = {"encode", "encode.log_scale", "factors"}
BATCH = 20
"""Samples whose densities under every posterior are held at a time."""


def names(options: Any) -> tuple[str, ...]:
    """Names of the results."""
    passport.require_counts("mig_sampled", options, num_points=0, num_samples=2)
    return ("mig_sampled",)


def _posterior(model: Model, params: Params, extra: Extra, batch: Batch, context: Context) -> dict[str, Array]:
    latent = model.encode(params, extra, batch["x"], context.keys("posterior"))
    parts = {"mean": latent.mean, "log_scale": latent.info["log_scale"], "sample": latent.sample}
    return {name: part.reshape(part.shape[0], -1) for name, part in parts.items()}


@jax.jit
def log_ratios(
    samples: Float[Array, "S D"],
    mean: Float[Array, "N D"],
    log_scale: Float[Array, "N D"],
    groups: Bool[Array, "S N F"],
) -> Float[Array, "S F D"]:
    """log q(z_j | v_k) - log q(z_j): aggregate posteriors over the examples of a group and over all of them.

    Group k of a sample holds the examples that share its value of factor k, the sample's own one among them.
    """
    logs = log_normal(samples[:, None], mean, log_scale)
    densities = jnp.exp(logs - jnp.max(logs, axis=1, keepdims=True))
    inside = jnp.einsum("snf,snd->sfd", groups.astype(densities.dtype), densities)
    tiny = jnp.finfo(densities.dtype).tiny
    given = jnp.log(jnp.maximum(inside, tiny)) - jnp.log(jnp.sum(groups, axis=1))[:, :, None]
    return given - jnp.log(jnp.mean(densities, axis=1))[:, None]


def gap(ratios: Float[np.ndarray, "S F D"], sizes: Float[np.ndarray, "F"]) -> float:
    """The gap from log ratios: means over samples are mutual informations; negative ones are noise about 0."""
    shared = np.maximum(ratios.mean(axis=0), 0.0)
    return float(np.mean(top_gap(shared.T) / np.log(sizes)))


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """The paper's estimator: aggregate posteriors over `options.num_points` examples (0: the split), normalised by the
    logarithm of the factor's number of values, expectations over `options.num_samples` draws of z.

    An example's own posterior is in both aggregates; with few examples per value that inflates the information.
    Standard error by the bootstrap over draws.
    """
    posterior = data.map(_posterior, state)
    generator = np.random.default_rng(0)
    order = generator.permutation(len(data.split.x))[: options.num_points or None]
    varying = [column for column in data.split.factors[order].T if len(np.unique(column)) > 1]
    factors = np.stack(varying, axis=1)
    mean, log_scale, samples = (posterior[name][order] for name in ("mean", "log_scale", "sample"))
    count = min(options.num_samples, len(order))
    ratios = np.concatenate(
        [
            log_ratios(
                samples[start : start + BATCH],
                mean,
                log_scale,
                factors[start : start + BATCH, None] == factors,
            )
            for start in range(0, count, BATCH)
        ]
    )[:count].astype(np.float64)
    sizes = np.array([len(np.unique(column)) for column in varying], np.float64)
    resampled = [gap(ratios[generator.integers(0, count, count)], sizes) for _ in range(100)]
    protocol = data.protocol | {"N": len(order), "samples": count, "code": "posterior sample"}
    return [passport.Result("mig_sampled", gap(ratios, sizes), float(np.std(resampled)), "score", protocol)]
