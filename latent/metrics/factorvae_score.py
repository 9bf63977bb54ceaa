"""FactorVAE score (Kim & Mnih 2018, arXiv 1802.05983, section 4): which code varies least where a factor is fixed."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from latent.evaluation_data import EvaluationData
from latent.metrics import passport
from latent.metrics.factor_codes import FactorCodes, SharedFactor, repeated
from latent.types import Model, State

needs = {"encode", "factors"}
THRESHOLD = 0.05
"""Codes whose standard deviation is smaller are left out."""


def names(options: Any) -> tuple[str, ...]:
    """Names of the results."""
    passport.require_counts("factorvae_score", options, num_points=2, batch=2, num_train=1, num_test=1, repeats=1)
    return ("factorvae_score",)


def active_codes(codes: Float[np.ndarray, "N D"], threshold: float = THRESHOLD) -> Bool[np.ndarray, "D"]:
    """Codes that move."""
    return np.std(codes, axis=0, ddof=1) >= threshold


def least_varying(
    batches: Float[np.ndarray, "M L D"], variances: Float[np.ndarray, "D"], active: Bool[np.ndarray, "D"]
) -> Int[np.ndarray, "M"]:
    """Index among the active codes of the one that varies least in every batch, relative to its variance."""
    within = np.var(batches[..., active], axis=1, ddof=1)
    return np.argmin(within / variances[active], axis=1)


def votes(
    codes: Int[np.ndarray, "M"], factors: Int[np.ndarray, "M"], num_codes: int, num_factors: int
) -> Int[np.ndarray, "D F"]:
    """How often every code varied least while every factor was fixed."""
    count = np.bincount(codes * num_factors + factors, minlength=num_codes * num_factors)
    return count.reshape(num_codes, num_factors)


def accuracy(train: Int[np.ndarray, "D F"], test: Int[np.ndarray, "D F"]) -> float:
    """Accuracy on `test` of the classifier that takes every code for the factor most of its `train` votes name."""
    return float(np.take_along_axis(test, train.argmax(axis=1)[:, None], axis=1).sum() / test.sum())


def score(draw: FactorCodes, generator: np.random.Generator, batch: int, num_train: int, num_test: int) -> float:
    """The score with the draw as the pool that batches come from; 0 where no code moves."""
    active = active_codes(draw.codes)
    if not active.any():
        return 0.0
    number, num_factors = num_train + num_test, draw.factors.shape[1]
    fixed = generator.integers(0, num_factors, number)
    rows = generator.integers(0, len(draw.codes), number)
    variances, shared = np.var(draw.codes, axis=0, ddof=1), SharedFactor(draw.factors)
    least = np.empty(number, np.int64)
    for factor in range(num_factors):
        chosen = np.flatnonzero(fixed == factor)
        if len(chosen):
            members = shared.partners(factor, rows[chosen], batch, generator)
            least[chosen] = least_varying(draw.codes[members], variances, active)
    sizes = (int(active.sum()), num_factors)
    return accuracy(votes(least[:num_train], fixed[:num_train], *sizes),
                    votes(least[num_train:], fixed[num_train:], *sizes))  # fmt: skip


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Accuracy of a majority vote: `options.num_train` batches to vote and `options.num_test` to judge (10,000 and
    5,000 in the literature) of `options.batch` examples (64), drawn with replacement from a pool of
    `options.num_points` whose variances normalise (10,000); `options.repeats` times, each with a pool of its own."""

    def once(draw: FactorCodes, generator: np.random.Generator) -> list[float]:
        return [score(draw, generator, options.batch, options.num_train, options.num_test)]

    return repeated(names(options), once, state, data, "factorvae_score", options, ["num_points"])
