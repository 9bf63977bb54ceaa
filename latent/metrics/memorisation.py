"""Does a generator repeat its training images, or itself: distances to the nearest ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from latent.analysis.neighbours import nearest, nearest_others
from latent.errors import UserError
from latent.evaluation_data import EvaluationData
from latent.extractors import catalogue
from latent.metrics import extraction, passport
from latent.types import Model, State

needs = {"sample", "training"}


def names(options: Any) -> tuple[str, ...]:
    """Names of the results; UserError for an extractor that there is not, or a share that is none."""
    extraction.require("memorisation", options, least=2)
    share = options.duplicate_below
    if not isinstance(share, float) or not 0 < share < 1:
        raise UserError(f"memorisation.duplicate_below={share!r} must lie between 0 and 1.")
    return (f"nearest_training_ratio_{options.extractor}", f"duplicates_{options.extractor}")


def ratio(samples: Float[np.ndarray, "N"], held_out: Float[np.ndarray, "M"]) -> tuple[float, float]:
    """Mean distance of samples over that of held-out examples, and its standard error (delta method)."""
    value = float(samples.mean() / held_out.mean())
    relative = [np.var(values, ddof=1) / len(values) / values.mean() ** 2 for values in (samples, held_out)]
    return value, value * math.sqrt(sum(relative))


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Of `options.num_samples` samples, and as many examples of the split, on the features of `options.extractor`.

    The ratio is 1 where samples are as far from the training split as unseen examples are; below 1 they are nearer to
    it (0: copies), above 1 they are farther from data altogether. A duplicate is a sample with another one nearer than
    `options.duplicate_below` times the mean distance of a held-out example to the nearest other one.
    """
    found = names(options)
    x = data.samples(state, options.num_samples)
    held_out = data.map(extraction.x_of_batch, state, limit=options.num_samples)
    extractor = catalogue.load(options.extractor, x.shape[1:])
    if reason := extraction.misfit(extractor, x) or extraction.misfit(extractor, held_out):
        return [passport.undefined(name, reason) for name in found]
    seen = extraction.of_split(extractor, state, data.training)
    samples, others = (extraction.outputs(extractor, values)["features"] for values in (x, held_out))
    distances, unseen = (nearest(features, seen, 1).distance[:, 0] for features in (samples, others))
    if min(len(samples), len(others)) < 2 or not unseen.any() or not distances.any():
        reason = "distances to the training split are all 0, or of fewer than 2 examples"
        return [passport.undefined(name, reason) for name in found]
    value, error = ratio(distances, unseen)
    limit = options.duplicate_below * nearest_others(others).mean()
    copies = np.float64(nearest_others(samples) < limit)
    protocol = data.protocol | extraction.protocol(extractor) | {"N_data": len(others)}
    described = protocol | {"N": len(x)} | passport.fitted_on(data.training.protocol, len(seen))
    return [
        passport.Result(found[0], value, error, "ratio", described),
        passport.mean(found[1], copies, "share", protocol | {"duplicate_below": options.duplicate_below}),
    ]
