"""The evidence lower bound and its rate (the KL)."""

from __future__ import annotations

from typing import Any

from latent.evaluation_data import EvaluationData
from latent.metrics import passport
from latent.types import Model, State

needs = {"terms.elbo", "terms.kl"}


def names(options: Any) -> tuple[str, ...]:
    """Names of the results."""
    return ("elbo", "kl")


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Single-sample ELBO and KL, nats an example."""
    terms = data.terms(state)
    protocol = data.protocol | {"samples": 1}
    return [passport.mean(name, terms[name], "nats", protocol) for name in names(options)]
