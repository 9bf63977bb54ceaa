"""In how many directions codes spread: the effective rank of their matrix (Roy & Vetterli 2007, EUSIPCO)."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from latent.evaluation_data import EvaluationData
from latent.metrics import passport, uncertainty
from latent.metrics.codes import posterior_mean
from latent.types import Model, State

needs = {"encode"}
RESAMPLINGS = 50


def names(options: Any) -> tuple[str, ...]:
    """Names of the results."""
    return ("effective_rank",)


def effective_rank(codes: Float[np.ndarray, "N d"]) -> float:
    """exp(entropy) of the normalised singular values of the centred codes: between 1 and d."""
    centred = codes - codes.mean(axis=0)
    values = np.linalg.svd(np.linalg.qr(centred, mode="r"), compute_uv=False)
    share = values[values > 0] / values.sum()
    return float(np.exp(-np.sum(share * np.log(share))))


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Of the split's posterior means; the standard error is the bootstrap's."""
    codes = data.map(posterior_mean, state).astype(np.float64)
    if np.ptp(codes, axis=0).max() == 0:
        return [passport.undefined("effective_rank", "every example has the same code")]
    error = float(uncertainty.bootstrap(effective_rank, [codes], RESAMPLINGS))
    protocol = data.protocol | {"N": len(codes), "code": "posterior mean"}
    return [passport.Result("effective_rank", effective_rank(codes), error, "dimensions", protocol)]
