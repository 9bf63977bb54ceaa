"""BetaVAE score (Higgins et al. 2017, ICLR, section 3): which factor the examples of pairs share, linearly."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from latent.evaluation_data import EvaluationData
from latent.metrics import passport
from latent.metrics.factor_codes import FactorCodes, SharedFactor, repeated
from latent.types import Model, State

needs = {"encode", "factors"}


def names(options: Any) -> tuple[str, ...]:
    """Names of the results."""
    passport.require_counts("betavae_score", options, num_points=2, batch=1, num_train=2, num_test=1, repeats=1)
    return ("betavae_score",)


def features(first: Float[np.ndarray, "... L D"], second: Float[np.ndarray, "... L D"]) -> Float[np.ndarray, "... D"]:
    """Mean absolute difference of the codes of pairs."""
    return np.mean(np.abs(first - second), axis=-2)


def pairs(
    draw: FactorCodes, generator: np.random.Generator, batch: int, number: int
) -> tuple[Float[np.ndarray, "M D"], Int[np.ndarray, "M"]]:
    """Features of `number` groups of `batch` pairs, and the factor that every pair of a group agrees in."""
    num_factors, shared = draw.factors.shape[1], SharedFactor(draw.factors)
    label = generator.integers(0, num_factors, number)
    found = np.empty((number, draw.codes.shape[1]))
    for factor in range(num_factors):
        chosen = np.flatnonzero(label == factor)
        first = generator.integers(0, len(draw.codes), len(chosen) * batch)
        second = shared.partners(factor, first, 1, generator)[:, 0]
        shape = (len(chosen), batch, draw.codes.shape[1])
        found[chosen] = features(draw.codes[first].reshape(shape), draw.codes[second].reshape(shape))
    return found, label


def classifier(x: Float[np.ndarray, "M D"], label: Int[np.ndarray, "M"]) -> Any:
    """Logistic regression with scikit-learn's penalty (C=1), run to convergence."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(solver="newton-cholesky", tol=1e-8).fit(x, label)


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Test accuracy of a linear classifier of the shared factor from mean |z_1 - z_2|: `options.num_train` and
    `options.num_test` groups (10,000 and 5,000 in the literature) of `options.batch` pairs (64), drawn with replacement
    from a pool of `options.num_points` examples; `options.repeats` times, each with a pool of its own."""

    def score(draw: FactorCodes, generator: np.random.Generator) -> list[float]:
        x, label = pairs(draw, generator, options.batch, options.num_train + options.num_test)
        fitted = classifier(x[: options.num_train], label[: options.num_train])
        return [float(np.mean(fitted.predict(x[options.num_train :]) == label[options.num_train :]))]

    return repeated(names(options), score, state, data, "betavae_score", options, ["num_points"])
