"""How often a classifier reads in a sample the class that it was asked to be."""

from __future__ import annotations

from typing import Any

import numpy as np

from latent.evaluation_data import EvaluationData
from latent.extractors import lenet
from latent.metrics import extraction, passport
from latent.types import Model, State

needs = {"sample"}


def names(options: Any) -> tuple[str, ...]:
    """Names of the results; UserError for an extractor that does not ship."""
    extraction.require("label_agreement", options, least=1, classes=True)
    return ("label_agreement",)


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Share of `options.num_samples` samples, the same number of every class, in which the classifier
    `options.extractor` finds their class. Its own accuracy on data is in the extractor's card."""
    extractor = lenet.load(options.extractor)
    classes = model.classes
    if classes != extractor.card["num_classes"]:
        reason = f"{extractor.name} tells {extractor.card['num_classes']} classes, the model can be asked for {classes}"
        return [passport.undefined("label_agreement", reason)]
    x = data.samples(state, options.num_samples, classes)
    if reason := extraction.misfit(extractor, x):
        return [passport.undefined("label_agreement", reason)]
    agrees = extraction.outputs(extractor, x)["probabilities"].argmax(axis=1) == np.arange(len(x)) % classes
    protocol = data.protocol | extraction.protocol(extractor)
    return [passport.mean("label_agreement", agrees.astype(np.float64), "share", protocol)]
