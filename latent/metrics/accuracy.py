"""Accuracy and cross entropy of a classifier."""

from __future__ import annotations

from typing import Any

from latent.evaluation_data import EvaluationData
from latent.metrics import passport
from latent.types import Model, State

needs = {"terms.accuracy", "terms.cross_entropy"}


def names(options: Any) -> tuple[str, ...]:
    """Names of the results."""
    return ("accuracy", "cross_entropy")


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Share of examples whose most probable class is theirs; -log p(class | x), nats."""
    terms = data.terms(state)
    units = {"accuracy": "share", "cross_entropy": "nats"}
    return [passport.mean(name, terms[name], units[name], data.protocol) for name in names(options)]
