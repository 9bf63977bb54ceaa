"""The evidence lower bound and its rate (the KL)."""

from __future__ import annotations

from typing import Any

from jaxtyping import Array, Float

from latent.evaluate import EvaluationData
from latent.metrics import passport
from latent.types import Batch, Context, Extra, Model, Params, State

needs = {"terms", "log_weights"}


def names(options: Any) -> tuple[str, ...]:
    """Names of the results."""
    return ("elbo", "kl")


def _terms(model: Model, params: Params, extra: Extra, batch: Batch, context: Context) -> dict[str, Float[Array, "B"]]:
    return model.terms(params, extra, batch, context)


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Single-sample ELBO and KL, nats an example."""
    terms = data.map(_terms, state)
    protocol = data.protocol | {"samples": 1}
    return [passport.mean(name, terms[name], "nats", protocol) for name in names(options)]
