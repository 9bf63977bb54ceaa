"""Frechet distance between Gaussians fitted to features of samples and of data.

Dowson & Landau 1982; as a score of generators Heusel et al. 2017 (arXiv 1706.08500), eq. 6. It is called FID on
the published Inception's features only; on others it carries its extractor's name, and compares on that one alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
from jaxtyping import Float

from latent.evaluation_data import EvaluationData
from latent.metrics import extraction, moments, passport, uncertainty
from latent.types import Model, State

needs = {"sample"}
RESAMPLINGS = 20


def names(options: Any) -> tuple[str, ...]:
    """Names of the results; UserError for an extractor that there is not."""
    extraction.require("frechet_distance", options, least=2)
    return (extraction.title("fd", "fid", options.extractor),)


def between(
    mean_a: Float[np.ndarray, "d"],
    covariance_a: Float[np.ndarray, "d d"],
    mean_b: Float[np.ndarray, "d"],
    covariance_b: Float[np.ndarray, "d d"],
) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2), in float64: symmetric, so that every root is real."""
    values, vectors = scipy.linalg.eigh(covariance_a)
    root = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
    cross = scipy.linalg.eigvalsh(root @ covariance_b @ root)
    trace = np.trace(covariance_a) + np.trace(covariance_b) - 2 * np.sum(np.sqrt(np.clip(cross, 0.0, None)))
    return float(np.sum((mean_a - mean_b) ** 2) + trace)


def of_features(a: Float[np.ndarray, "N d"], b: Float[np.ndarray, "M d"]) -> float:
    """The distance between two sets of features; covariances divide by N - 1."""
    a, b = moments.of(a), moments.of(b)
    return between(a.mean, a.covariance, b.mean, b.covariance)


def result(name: str, compared: extraction.Compared | str, paired: bool = False) -> passport.Result:
    """The distance with its standard error by the bootstrap, over resampled samples and data alike, or the reason why
    there is none. `paired`: sample i belongs to example i."""
    if isinstance(compared, str):
        return passport.undefined(name, compared)
    sets = compared.real, compared.fake
    fewest, width = min(map(len, sets)), compared.real.shape[1]
    if fewest <= width:
        reason = f"{width} features need at least {width + 1} samples and examples, not {fewest}"
        return passport.undefined(name, reason)
    error = float(uncertainty.bootstrap(of_features, sets, RESAMPLINGS, paired))
    return passport.Result(name, of_features(*sets), error, "features^2", compared.protocol)


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Distance of `options.num_samples` samples to the split, on the features of `options.extractor`.

    The distance is biased upwards, more so for fewer samples: it compares at equal N only.
    """
    return [result(*names(options), extraction.of_samples(options, state, data))]
