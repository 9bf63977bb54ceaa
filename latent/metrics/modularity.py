"""Modularity and explicitness of codes (Ridgeway & Mozer 2018, arXiv 1802.05312, section 3)."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from latent.evaluation_data import EvaluationData
from latent.metrics import passport
from latent.metrics.factor_codes import FactorCodes, repeated
from latent.metrics.histograms import discretised, mutual_informations
from latent.types import Model, State

needs = {"encode", "factors"}


def names(options: Any) -> tuple[str, ...]:
    """Names of the results."""
    passport.require_counts("modularity", options, num_train=2, num_test=2, repeats=1)
    return ("modularity", "explicitness")


def modularity(shared: Float[np.ndarray, "D F"]) -> float:
    """Mean over codes of 1 - (squared information on all factors but the best) / (F - 1 times that on the best), from
    mutual informations; 0 for a code that tells nothing."""
    squared = shared**2
    best = squared.max(axis=1)
    others = (squared.sum(axis=1) - best) / (np.where(best > 0, best, 1.0) * (shared.shape[1] - 1))
    return float(np.mean(np.where(best > 0, 1.0 - others, 0.0)))


def explicitness(train: FactorCodes, test: FactorCodes) -> Float[np.ndarray, "F"]:
    """Per factor, the mean area under the curve, one value against all others, of a logistic regression on the codes.

    Not rescaled: chance is 0.5. Values that only one of the two draws has are left out.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    mean, scale = train.codes.mean(axis=0), train.codes.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    areas = []
    for factor in range(train.factors.shape[1]):
        known, target = train.factors[:, factor], test.factors[:, factor]
        fitted = LogisticRegression(solver="newton-cholesky").fit((train.codes - mean) / scale, known)
        probability = fitted.predict_proba((test.codes - mean) / scale)
        classes = {value: column for column, value in enumerate(fitted.classes_)}
        common = [value for value in np.unique(target) if value in classes and (target != value).any()]
        areas.append(np.mean([roc_auc_score(target == value, probability[:, classes[value]]) for value in common]))
    return np.array(areas)


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Modularity from 20-bin histograms of `options.num_train` examples; explicitness fitted on these and judged on
    `options.num_test` others; `options.repeats` times. Needs two factors that vary."""
    found = data.split.factors
    if sum(len(np.unique(column)) > 1 for column in found.T) < 2:
        reason = f"{data.protocol['data']} has fewer than two factors that vary"
        return [passport.undefined(name, reason) for name in names(options)]

    def score(draw: FactorCodes, generator: np.random.Generator) -> list[float]:
        train, test = draw.halves(options.num_train)
        shared = mutual_informations(discretised(train.codes), train.factors)
        return [modularity(shared), float(np.mean(explicitness(train, test)))]

    return repeated(names(options), score, state, data, "modularity", options, ["num_train", "num_test"])
