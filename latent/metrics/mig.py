"""Mutual information gap (Chen et al. 2018, arXiv 1802.04942, eq. 6) by histograms of posterior means."""

from __future__ import annotations

from typing import Any

import numpy as np

from latent.evaluation_data import EvaluationData
from latent.metrics import passport
from latent.metrics.factor_codes import FactorCodes, repeated
from latent.metrics.histograms import discretised, entropy, mutual_informations, top_gap
from latent.types import Model, State

needs = {"encode", "factors"}


def names(options: Any) -> tuple[str, ...]:
    """Names of the results."""
    passport.require_counts("mig", options, num_points=2, repeats=1)
    return ("mig",)


def mutual_information_gap(draw: FactorCodes) -> float:
    """Mean over factors of the gap between the two codes that tell most of it, over the factor's entropy."""
    shared = mutual_informations(discretised(draw.codes), draw.factors)
    return float(np.mean(top_gap(shared) / [entropy(factor) for factor in draw.factors.T]))


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """The estimator of Locatello et al. 2019: 20 equal-width bins per code (`mig_sampled` is the paper's own).

    `options.num_points` examples (10,000 in the literature; the value falls with their number, as spurious information
    does), `options.repeats` times.
    """
    score = lambda draw, generator: [mutual_information_gap(draw)]  # noqa: E731
    return repeated(names(options), score, state, data, "mig", options, ["num_points"])
