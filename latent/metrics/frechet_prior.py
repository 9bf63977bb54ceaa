"""Frechet distance of samples beside that of the first stage's own prior, and their ratio: what a second stage gains.

Both sets of samples come from the same number of keys and the same decoder, and are compared with the same examples:
the ratio is of what is put on the codes alone, a prior fixed before training or a density fitted after it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from latent.evaluation_data import EvaluationData
from latent.metrics import extraction, frechet_distance, passport, uncertainty
from latent.types import Model, State

needs = {"sample", "sample_prior"}
RESAMPLINGS = 100
NORMAL_95 = 1.96


def names(options: Any) -> tuple[str, ...]:
    """Names of the results; UserError for an extractor that there is not."""
    extraction.require("frechet_prior", options, least=2)
    distance = extraction.title("fd", "fid", options.extractor)
    return (
        distance,
        f"{distance}_prior",
        f"{distance}_to_prior",
        f"{distance}_to_prior_low",
        f"{distance}_to_prior_high",
    )


def log_ratio(real: Float[np.ndarray, "N d"], fake: Float[np.ndarray, "M d"], prior: Float[np.ndarray, "M d"]) -> float:
    """log of the distance of `fake` over that of `prior`, both to `real`."""
    return math.log(frechet_distance.of_features(real, fake) / frechet_distance.of_features(real, prior))


def interval(
    real: Float[np.ndarray, "N d"], fake: Float[np.ndarray, "M d"], prior: Float[np.ndarray, "M d"]
) -> tuple[float, float, float, float]:
    """The ratio, its standard error, and the ends of its 95% interval.

    From the bootstrap's standard deviation of the logarithm, around the ratio itself: resampled distances are biased
    upwards, the small one relatively more, so that quantiles of resampled ratios would lie too high. The same examples
    are drawn again for both distances.
    """
    center = log_ratio(real, fake, prior)
    spread = float(uncertainty.bootstrap(log_ratio, (real, fake, prior), RESAMPLINGS))
    low, high = (math.exp(center + sign * NORMAL_95 * spread) for sign in (-1, 1))
    return math.exp(center), math.exp(center) * spread, low, high


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Of `options.num_samples` samples and as many of the prior, on the features of `options.extractor`. The interval's
    two ends are rows of their own."""
    found = names(options)
    by_prior = data.drawn_by(model.sample_prior)
    pair = extraction.of_samples(options, state, data), extraction.of_samples(options, state, by_prior)
    results = [frechet_distance.result(name, compared) for name, compared in zip(found, pair, strict=False)]
    if any(result.value is None for result in results):
        return results + [passport.undefined(name, results[-1].reason or results[0].reason) for name in found[2:]]
    samples, prior = pair
    value, error, low, high = interval(samples.real, samples.fake, prior.fake)
    rows = zip(found[2:], (value, low, high), (error, None, None), strict=True)
    return results + [passport.Result(name, number, its, "ratio", samples.protocol) for name, number, its in rows]
