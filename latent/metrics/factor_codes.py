"""Codes beside the factors of variation they should tell apart: what every disentanglement metric starts from.

The code of an example is its posterior mean. A metric is computed on disjoint random draws of a split; its value is
their mean and its standard error comes from their spread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from latent.evaluation_data import EvaluationData
from latent.metrics import passport
from latent.metrics.codes import posterior_mean
from latent.types import State


class FactorCodes(NamedTuple):
    """Codes and factors of the same examples, in random order. Factors of one value are left out."""

    codes: Float[np.ndarray, "N D"]
    factors: Int[np.ndarray, "N F"]

    def halves(self, first: int) -> tuple[FactorCodes, FactorCodes]:
        """The first `first` examples, to fit on, and the others, to test on."""
        return (FactorCodes(self.codes[:first], self.factors[:first]),
                FactorCodes(self.codes[first:], self.factors[first:]))  # fmt: skip


def repeated(
    names: Sequence[str],
    score: Callable[[FactorCodes, np.random.Generator], Sequence[float]],
    state: State,
    data: EvaluationData,
    metric: str,
    options: Any,
    sizes: Sequence[str],
) -> list[passport.Result]:
    """Results `names` of `score(draw, generator)` over `options.repeats` disjoint draws of the split.

    A draw has as many examples as the options in `sizes` add up to. Rows with a reason where the split is too small.
    """
    points = sum(options[size] for size in sizes)
    available = len(data.split.x)
    if points * options.repeats > available:
        asked = " + ".join(f"{metric}.{size}={options[size]}" for size in sizes)
        reason = f"{asked}, {metric}.repeats={options.repeats} times: more than the {available} examples of this split"
        return [passport.undefined(name, reason) for name in names]
    codes = data.map(posterior_mean, state).astype(np.float64)
    generator = np.random.default_rng(0)
    scores = np.array([score(draw, generator) for draw in _draws(codes, data, points, options.repeats, generator)])
    protocol = data.protocol | {**options.plain(), "N": points, "code": "posterior mean"}
    errors = np.std(scores, axis=0, ddof=1) / math.sqrt(len(scores)) if len(scores) > 1 else [None] * len(names)
    return [
        passport.Result(name, float(value), None if error is None else float(error), "score", protocol)
        for name, value, error in zip(names, np.mean(scores, axis=0), errors, strict=True)
    ]


def _draws(
    codes: Float[np.ndarray, "N D"], data: EvaluationData, points: int, repeats: int, generator: np.random.Generator
) -> Iterator[FactorCodes]:
    factors = data.split.factors
    varying = [column for column in range(factors.shape[1]) if len(np.unique(factors[:, column])) > 1]
    order = generator.permutation(len(codes))
    for number in range(repeats):
        rows = order[number * points : (number + 1) * points]
        yield FactorCodes(codes[rows], factors[rows][:, varying])


class SharedFactor:
    """Draws examples that agree in one factor, from a pool: all others vary as they do in the pool."""

    def __init__(self, factors: Int[np.ndarray, "N F"]):
        self._factors = factors
        self._orders = [np.argsort(column, kind="stable") for column in factors.T]
        self._sorted = [column[order] for column, order in zip(factors.T, self._orders, strict=True)]

    def partners(
        self, factor: int, rows: Int[np.ndarray, "M"], count: int, generator: np.random.Generator
    ) -> Int[np.ndarray, "M count"]:
        """For every row, `count` rows drawn with replacement among those that share its value of `factor`."""
        values = self._factors[rows, factor]
        first = np.searchsorted(self._sorted[factor], values, "left")
        last = np.searchsorted(self._sorted[factor], values, "right")
        chosen = generator.integers(first[:, None], last[:, None], (len(rows), count))
        return self._orders[factor][chosen]
