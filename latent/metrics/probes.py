"""How much of its class a code gives away: a linear classifier and nearest neighbours, fitted on training codes."""

from __future__ import annotations

from typing import Any

import numpy as np

from latent.analysis.neighbours import classified
from latent.analysis.probing import linear
from latent.evaluation_data import EvaluationData
from latent.metrics import passport
from latent.metrics.codes import posterior_mean
from latent.types import Model, State

needs = {"encode", "labels", "training"}
NEIGHBOURS = (1, 3, 5, 10)


def names(options: Any) -> tuple[str, ...]:
    """Names of the results."""
    passport.require_counts("probes", options, limit=0)
    return ("linear_probe", *(f"knn_probe_{k}" for k in NEIGHBOURS))


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Accuracy on the split's posterior means of a linear probe and of 1, 3, 5 and 10 nearest neighbours (one vote
    each, ties to the smallest class), both fitted on the first `options.limit` training codes (0: all)."""
    fitted_on = data.training.map(posterior_mean, state, limit=options.limit).astype(np.float64)
    known = data.training.split.label[: len(fitted_on)]
    if len(np.unique(known)) < 2 or len(known) < max(NEIGHBOURS):
        reason = f"{len(known)} training examples of {len(np.unique(known))} classes are too few"
        return [passport.undefined(name, reason) for name in names(options)]
    codes, labels = data.map(posterior_mean, state).astype(np.float64), data.split.label
    guesses = [linear(fitted_on, known, codes), *classified(codes, fitted_on, known, NEIGHBOURS).values()]
    protocol = data.protocol | {"code": "posterior mean"} | passport.fitted_on(data.training.protocol, len(known))
    return [
        passport.mean(name, np.float64(guess == labels), "accuracy", protocol)
        for name, guess in zip(names(options), guesses, strict=True)
    ]
