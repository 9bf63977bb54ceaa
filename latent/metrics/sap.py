"""Separated attribute predictability (Kumar et al. 2018, arXiv 1711.00848, section 3)."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float

from latent.evaluation_data import EvaluationData
from latent.metrics import passport
from latent.metrics.factor_codes import FactorCodes, repeated
from latent.metrics.histograms import top_gap
from latent.types import Model, State

needs = {"encode", "factors"}


def names(options: Any) -> tuple[str, ...]:
    """Names of the results."""
    passport.require_counts("sap", options, num_train=2, num_test=1, repeats=1)
    return ("sap", "sap_correlation")


def accuracies(train: FactorCodes, test: FactorCodes) -> Float[np.ndarray, "D F"]:
    """Test accuracy of a linear support vector machine that sees one code, for every code and factor."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    scores = np.empty((train.codes.shape[1], train.factors.shape[1]))
    for code, factor in np.ndindex(*scores.shape):
        machine = LinearSVC(C=0.01, class_weight="balanced", random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            machine.fit(train.codes[:, [code]], train.factors[:, factor])
        scores[code, factor] = np.mean(machine.predict(test.codes[:, [code]]) == test.factors[:, factor])
    return scores


def squared_correlations(draw: FactorCodes) -> Float[np.ndarray, "D F"]:
    """Squared correlation of every code with every factor's index; 0 for a constant code."""
    codes, factors = draw.codes - draw.codes.mean(axis=0), draw.factors - draw.factors.mean(axis=0)
    variances = np.sum(codes**2, axis=0)[:, None] * np.sum(factors**2, axis=0)
    constant = codes.var(axis=0, ddof=1) <= 1e-12
    return np.where(constant[:, None], 0.0, (codes.T @ factors) ** 2 / np.where(constant[:, None], 1.0, variances))


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Mean over factors of how far the best code is ahead of the second best: `sap` in accuracy of predicting the
    value, `sap_correlation` in squared correlation with its index.

    Machines fitted on `options.num_train` examples (10,000 in the literature) and judged on `options.num_test` others
    (5,000), `options.repeats` times. With one linear code a machine cannot single out middle values: a perfect code
    does not reach 1.
    """

    def score(draw: FactorCodes, generator: np.random.Generator) -> list[float]:
        train, test = draw.halves(options.num_train)
        return [float(np.mean(top_gap(matrix))) for matrix in (accuracies(train, test), squared_correlations(train))]

    return repeated(names(options), score, state, data, "sap", options, ["num_train", "num_test"])
