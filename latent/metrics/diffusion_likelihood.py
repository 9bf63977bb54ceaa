"""What the likelihood metrics of diffusion models share: streaming a split, options, rows."""

from __future__ import annotations

from typing import Any

from latent.errors import UserError
from latent.evaluation_data import EvaluationData
from latent.metrics import passport
from latent.types import State


def check(metric: str, options: Any) -> None:
    """Raises UserError for options that make no sense."""
    passport.require_counts(metric, options, steps=2, limit=0)


def result(kind: str, name: str, state: State, data: EvaluationData, options: Any) -> passport.Result:
    """Mean over the first `options.limit` examples (0: all) of `Model.likelihoods[kind]`, bits a dimension."""
    function = data.model.likelihoods[kind]
    settings = {key: value for key, value in options.plain().items() if key != "limit"}
    quantised = not data.protocol.get("preprocessing", {}).get("dequantise", False)

    def bits(params: Any, extra: Any, batch: Any, keys: Any) -> Any:
        return function(params, extra, batch, keys, quantised=quantised, **settings)

    try:
        values = data.stream(bits, state, limit=options.limit)
    except TypeError as error:
        raise UserError(f"{kind}: options {settings} do not fit: {error}.") from error
    # Not `classes`, which a classifier that guides samples has too. Numbers without text were recorded without its key:
    # they stay comparable.
    told = data.model.told
    conditional = {"conditional": "label" in told} | ({"text": True} if "text" in told else {})
    return passport.mean(name, values, "bits/dim", data.protocol | settings | conditional)
