"""How far the dimensions of a code depend on each other, without factors (Locatello et al. 2019, arXiv 1811.12359)."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from latent.evaluation_data import EvaluationData
from latent.metrics import passport
from latent.metrics.codes import posterior_mean
from latent.metrics.histograms import discretised, mutual_information
from latent.types import Model, State

needs = {"encode"}
RESAMPLINGS = 20


def names(options: Any) -> tuple[str, ...]:
    """Names of the results."""
    passport.require_counts("code_dependence", options, limit=0)
    return ("gaussian_total_correlation", "gaussian_wasserstein", "code_mutual_information")


def total_correlation(covariance: Float[np.ndarray, "D D"]) -> float:
    """KL(N(0, C) || N(0, diag C)), nats; infinite where a dimension is a linear function of others."""
    sign, log_determinant = np.linalg.slogdet(covariance)
    return float(0.5 * (np.sum(np.log(np.diag(covariance))) - log_determinant)) if sign > 0 else np.inf


def wasserstein(covariance: Float[np.ndarray, "D D"]) -> float:
    """Squared 2-Wasserstein distance of N(0, C) and N(0, diag C)."""
    scale = np.sqrt(np.diag(covariance))
    eigenvalues = np.linalg.eigvalsh(covariance * scale[:, None] * scale)
    root_trace = np.sum(np.sqrt(np.maximum(eigenvalues, 0.0)))
    return float(2 * np.trace(covariance) - 2 * root_trace)


def mean_mutual_information(codes: Float[np.ndarray, "N D"]) -> float:
    """Mean over pairs of dimensions of their mutual information, nats, by 20-bin histograms."""
    bins = discretised(codes)
    pairs = [(first, second) for first in range(bins.shape[1]) for second in range(first)]
    return float(np.mean([mutual_information(bins[:, first], bins[:, second]) for first, second in pairs]))


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Total correlation and Wasserstein distance to independence of the Gaussian with the codes' covariance, and the
    mean mutual information of pairs; over posterior means of the first `options.limit` examples (0: all).

    Dimensions that do not move (variance 1e-12 or less) are left out. Standard errors by the bootstrap.
    """
    codes = data.map(posterior_mean, state, limit=options.limit).astype(np.float64)
    codes = codes[:, np.var(codes, axis=0) > 1e-12]
    if codes.shape[1] < 2 or len(codes) <= codes.shape[1]:
        reason = f"{len(codes)} codes with {codes.shape[1]} dimensions that move"
        return [passport.undefined(name, reason) for name in names(options)]

    def values(rows: Float[np.ndarray, "N D"]) -> list[float]:
        covariance = np.atleast_2d(np.cov(rows.T))
        return [total_correlation(covariance), wasserstein(covariance), mean_mutual_information(rows)]

    generator = np.random.default_rng(0)
    resampled = [values(codes[generator.integers(0, len(codes), len(codes))]) for _ in range(RESAMPLINGS)]
    protocol = data.protocol | {"N": len(codes), "code": "posterior mean"}
    return [
        passport.Result(name, value, float(error), unit, protocol)
        for name, value, error, unit in zip(
            names(options), values(codes), np.std(resampled, axis=0), ("nats", "squared distance", "nats"), strict=True
        )
    ]
