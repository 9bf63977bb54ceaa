"""Classes found without labels: clusters of codes beside the classes of their examples."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int

from latent.evaluation_data import EvaluationData
from latent.metrics import passport, uncertainty
from latent.metrics.codes import posterior_mean
from latent.types import Batch, Context, Extra, Model, Params, State

needs = {"encode", "labels", "training"}
RESAMPLINGS = 50
SCORES = ("accuracy", "nmi", "ari")


def names(options: Any) -> tuple[str, ...]:
    """Names of the results: three scores of k-means, of a Gaussian mixture, and of the model's own mixture."""
    passport.require_counts("clustering", options, clusters=0, limit=0)
    return tuple(f"{method}_{score}" for method in ("kmeans", "gmm", "mixture_prior") for score in SCORES)


def accuracy(labels: Int[np.ndarray, "N"], clusters: Int[np.ndarray, "N"]) -> float:
    """Share of examples whose cluster stands for their class, under the best one-to-one assignment (Hungarian method);
    clusters without a class, where they outnumber them, count as wrong."""
    from scipy.optimize import linear_sum_assignment

    table = np.zeros((clusters.max() + 1, labels.max() + 1), np.int64)
    np.add.at(table, (clusters, labels), 1)
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / len(labels))


def scores(labels: Int[np.ndarray, "N"], clusters: Int[np.ndarray, "N"]) -> tuple[float, float, float]:
    """Accuracy, normalised mutual information (by the arithmetic mean of entropies), adjusted Rand index."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    found = normalized_mutual_info_score(labels, clusters), adjusted_rand_score(labels, clusters)
    return accuracy(labels, clusters), float(found[0]), float(found[1])


def kmeans(codes: Float[np.ndarray, "N d"], count: int, others: Float[np.ndarray, "M d"]) -> Int[np.ndarray, "M"]:
    """Clusters of `others` by k-means on `codes`: the best of ten starts."""
    from sklearn.cluster import KMeans

    return KMeans(count, n_init=10, random_state=0).fit(codes).predict(others)


def gaussian_mixture(
    codes: Float[np.ndarray, "N d"], count: int, others: Float[np.ndarray, "M d"]
) -> Int[np.ndarray, "M"]:
    """Clusters of `others` by a mixture of Gaussians with full covariances, fitted to `codes` from k-means."""
    from sklearn.mixture import GaussianMixture

    return GaussianMixture(count, random_state=0, reg_covar=1e-4).fit(codes).predict(others)


def _own(model: Model, params: Params, extra: Extra, batch: Batch, context: Context) -> Int[Array, "B"]:
    latent = model.encode(params, extra, batch["x"], context.keys("posterior"))
    return latent.info["responsibilities"].argmax(axis=1)


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Of the split's posterior means, clustered by what is fitted to the first `options.limit` training codes (0: all)
    with `options.clusters` clusters (0: one a class); and by the prior's own responsibilities, where it is a mixture.

    Labels only name the clusters, on the split itself. Standard errors are the bootstrap's over examples, with the
    clustering as it is: another seed of the training moves a score by far more.
    """
    fitted_on = data.training.map(posterior_mean, state, limit=options.limit).astype(np.float64)
    codes, labels = data.map(posterior_mean, state).astype(np.float64), data.split.label
    count = options.clusters or int(labels.max()) + 1
    if len(fitted_on) < count:
        reason = f"{count} clusters need at least {count} training examples, not {len(fitted_on)}"
        return [passport.undefined(name, reason) for name in names(options)]
    protocol = data.protocol | {"N": len(codes), "code": "posterior mean", "matching": "Hungarian"}
    fitted = protocol | {"clusters": count} | passport.fitted_on(data.training.protocol, len(fitted_on))
    found = {method: (method(fitted_on, count, codes), fitted) for method in (kmeans, gaussian_mixture)}
    rows = [row for clusters, described in found.values() for row in _rows(labels, clusters, described)]
    if data.has("encode.responsibilities", state):
        rows += _rows(labels, data.map(_own, state), protocol)
    else:
        rows += [("the prior is no mixture",)] * len(SCORES)
    return [
        passport.undefined(name, *row) if len(row) == 1 else passport.Result(name, *row)
        for name, row in zip(names(options), rows, strict=True)
    ]


def _rows(labels: Int[np.ndarray, "N"], clusters: Int[np.ndarray, "N"], protocol: dict[str, Any]) -> list[tuple]:
    errors = uncertainty.bootstrap(scores, [labels, clusters], RESAMPLINGS, paired=True)
    units = ("share", "normalised nats", "index")
    return [
        (value, float(error), unit, protocol)
        for value, error, unit in zip(scores(labels, clusters), errors, units, strict=True)
    ]
