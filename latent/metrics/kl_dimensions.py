"""The rate by latent dimension: which of them carry the KL, and over how many it is spread."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Array, Float

from latent.evaluation_data import EvaluationData
from latent.metrics import passport, uncertainty
from latent.metrics.codes import posterior_mean
from latent.types import Batch, Context, Extra, Model, Params, State

needs = {"encode.kl"}
RESAMPLINGS = 50


def names(options: Any) -> tuple[str, ...]:
    """Names of the results: the KL of the `options.largest` dimensions that have most of it, falling, and their
    effective number."""
    passport.require_counts("kl_dimensions", options, largest=1)
    return ("kl_effective_dimensions", *(f"kl_dimension_{place + 1}" for place in range(options.largest)))


def effective_number(rates: Float[np.ndarray, "d"]) -> float:
    """exp(entropy) of the shares of the total: d where all are equal, 1 where one has everything."""
    share = rates[rates > 0] / np.sum(rates[rates > 0])
    return float(np.exp(-np.sum(share * np.log(share))))


def _kl(model: Model, params: Params, extra: Extra, batch: Batch, context: Context) -> Float[Array, "B d"]:
    rates = model.encode(params, extra, batch["x"], context.keys("posterior")).info["kl"]
    return rates.reshape(rates.shape[0], -1)


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Nats of every dimension, averaged over the split. Undefined for priors whose KL does not divide by dimension."""
    found = names(options)
    rates = data.map(_kl, state).astype(np.float64)
    width = data.map(posterior_mean, state, limit=1).shape[1]
    if rates.shape[1] != width:
        reason = f"the KL to this prior does not divide into the {width} dimensions"
        return [passport.undefined(name, reason) for name in found]
    mean = rates.mean(axis=0)
    if not (mean > 0).any():
        return [passport.undefined(name, "no dimension has a KL above 0") for name in found]
    number = lambda rows: effective_number(rows.mean(axis=0))  # noqa: E731
    error = float(uncertainty.bootstrap(number, [rates], RESAMPLINGS))
    protocol = data.protocol | {"N": len(rates)}
    results = [passport.Result(found[0], effective_number(mean), error, "dimensions", protocol)]
    order = np.argsort(-mean)
    for place, name in enumerate(found[1:]):
        if place >= width:
            results.append(passport.undefined(name, f"the code has {width} dimensions"))
        else:
            results.append(passport.mean(name, rates[:, order[place]], "nats", data.protocol))
    return results
