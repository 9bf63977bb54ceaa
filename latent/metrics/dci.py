"""Disentanglement, completeness, informativeness (Eastwood & Williams 2018, ICLR) with gradient boosted trees."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.stats
from jaxtyping import Float

from latent.evaluation_data import EvaluationData
from latent.metrics import passport
from latent.metrics.factor_codes import FactorCodes, repeated
from latent.types import Model, State

needs = {"encode", "factors"}


def names(options: Any) -> tuple[str, ...]:
    """Names of the results."""
    passport.require_counts("dci", options, num_train=2, num_test=1, repeats=1)
    return ("dci_disentanglement", "dci_completeness", "dci_informativeness")


def importances(train: FactorCodes, test: FactorCodes) -> tuple[Float[np.ndarray, "D F"], float]:
    """How much every code matters for predicting every factor, and the mean accuracy on `test`."""
    from sklearn.ensemble import GradientBoostingClassifier

    columns, accuracies = [], []
    for factor in range(train.factors.shape[1]):
        trees = GradientBoostingClassifier(random_state=0).fit(train.codes, train.factors[:, factor])
        columns.append(np.abs(trees.feature_importances_))
        accuracies.append(np.mean(trees.predict(test.codes) == test.factors[:, factor]))
    return np.stack(columns, axis=1), float(np.mean(accuracies))


def _concentration(importance: Float[np.ndarray, "A B"]) -> Float[np.ndarray, "A"]:
    """1 where a row has one entry, 0 where all are equal."""
    return 1.0 - scipy.stats.entropy(importance + 1e-11, base=importance.shape[1], axis=1)


def disentanglement(importance: Float[np.ndarray, "D F"]) -> float:
    """Whether a code tells of one factor only: mean over codes, weighted by their share of the importance."""
    return float(np.sum(_concentration(importance) * _share(importance.sum(axis=1))))


def completeness(importance: Float[np.ndarray, "D F"]) -> float:
    """Whether a factor is told by one code only: mean over factors, weighted likewise."""
    return float(np.sum(_concentration(importance.T) * _share(importance.sum(axis=0))))


def _share(weights: Float[np.ndarray, "A"]) -> Float[np.ndarray, "A"]:
    return weights / weights.sum() if weights.sum() else np.full(len(weights), 1 / len(weights))


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Trees on `options.num_train` examples (10,000 in the literature: minutes), accuracy on `options.num_test`
    others, `options.repeats` times. Informativeness is that accuracy. The values move with scikit-learn's defaults."""

    def score(draw: FactorCodes, generator: np.random.Generator) -> list[float]:
        importance, accuracy = importances(*draw.halves(options.num_train))
        return [disentanglement(importance), completeness(importance), accuracy]

    return repeated(names(options), score, state, data, "dci", options, ["num_train", "num_test"])
