"""Which classes a classifier finds among a generator's samples, and how sure it is of them."""

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
    extraction.require("class_coverage", options, least=1, classes=True)
    return ("class_coverage_min_share", "class_coverage_confidence")


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Share of the class that is found least often among `options.num_samples` samples, and the mean probability that
    the classifier `options.extractor` gives to the class it finds.

    A generator of every class alike has a share of 1 / classes; one that has lost a class has 0. Standard errors by the
    bootstrap over samples and from their spread.
    """
    extractor = lenet.load(options.extractor)
    x = data.samples(state, options.num_samples)
    if reason := extraction.misfit(extractor, x):
        return [passport.undefined(name, reason) for name in names(options)]
    probabilities = extraction.outputs(extractor, x)["probabilities"]
    classes, found = probabilities.shape[1], probabilities.argmax(axis=1)
    smallest = lambda rows: np.bincount(found[rows], minlength=classes).min() / len(rows)  # noqa: E731
    generator = np.random.default_rng(0)
    resampled = [smallest(generator.integers(0, len(x), len(x))) for _ in range(200)]
    protocol = data.protocol | {"N": len(x)} | extraction.protocol(extractor)
    share = passport.Result(
        names(options)[0], float(smallest(np.arange(len(x)))), float(np.std(resampled)), "share", protocol
    )
    return [share, passport.mean(names(options)[1], probabilities.max(axis=1), "probability", protocol)]
