"""How often a classifier reads in a sample the class that it was asked to be."""

from __future__ import annotations

from typing import Any

import numpy as np

from latent.errors import UserError, unknown_name
from latent.evaluate import EvaluationData
from latent.extractors import lenet
from latent.metrics import passport
from latent.metrics.class_coverage import classify
from latent.types import Model, State

needs = {"sample"}


def names(options: Any) -> tuple[str, ...]:
    """Names of the results; UserError for an extractor that does not ship."""
    passport.require_counts("label_agreement", options, num_samples=1)
    if options.extractor not in lenet.names():
        raise unknown_name("label_agreement.extractor", options.extractor, lenet.names())
    return ("label_agreement",)


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Share of `options.num_samples` samples, the same number of every class, in which the classifier
    `options.extractor` finds their class. Its own accuracy on data is in the extractor's card."""
    extractor = lenet.load(options.extractor)
    classes = extractor.card["num_classes"]
    try:
        x = data.samples(state, options.num_samples, classes)
    except UserError as error:  # a model without labels
        return [passport.undefined("label_agreement", str(error))]
    if x.shape[1:] != tuple(extractor.card["shape"]):
        reason = f"{extractor.name} sees images of {tuple(extractor.card['shape'])}, these are {x.shape[1:]}"
        return [passport.undefined("label_agreement", reason)]
    agrees = np.float64(classify(extractor, x).argmax(axis=1) == np.arange(len(x)) % classes)
    protocol = data.protocol | {"extractor": extractor.name, "extractor_sha256": extractor.sha256}
    return [passport.mean("label_agreement", agrees, "share", protocol)]
