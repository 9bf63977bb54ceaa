"""Frechet distance of reconstructions to the images they are made of: what of `frechet_distance` the decoder alone
accounts for, whatever the prior ("rFID" where the features are Inception's)."""

from __future__ import annotations

from typing import Any

from latent.evaluation_data import EvaluationData
from latent.metrics import extraction, frechet_distance, passport
from latent.metrics.codes import reconstruction
from latent.types import Model, State

needs = {"encode", "decode"}


def names(options: Any) -> tuple[str, ...]:
    """Names of the results; UserError for an extractor that there is not."""
    extraction.require_extractor("frechet_reconstruction", options)
    return (extraction.title("fd", "fid", options.extractor) + "_reconstruction",)


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Distance of the split, decoded from posterior means, to the split, on the features of `options.extractor`."""
    compared = extraction.compare(options, state, data, data.map(reconstruction, state))
    return [frechet_distance.result(*names(options), compared, paired=True)]
