"""Which classes a classifier finds among a generator's samples, and how sure it is of them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from latent.errors import unknown_name
from latent.evaluate import EvaluationData
from latent.extractors import lenet
from latent.metrics import passport
from latent.types import Model, State

needs = {"sample"}
BATCH = 500


def names(options: Any) -> tuple[str, ...]:
    """Names of the results; UserError for an extractor that does not ship."""
    passport.require_counts("class_coverage", options, num_samples=1)
    if options.extractor not in lenet.names():
        raise unknown_name("class_coverage.extractor", options.extractor, lenet.names())
    return ("class_coverage_min_share", "class_coverage_confidence")


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Share of the class that is found least often among `options.num_samples` samples, and the mean probability that
    the classifier `options.extractor` gives to the class it finds.

    A generator of every class alike has a share of 1 / classes; one that has lost a class has 0. Standard errors by the
    bootstrap over samples and from their spread.
    """
    extractor = lenet.load(options.extractor)
    x = data.samples(state, options.num_samples)
    if x.shape[1:] != tuple(extractor.card["shape"]):
        reason = f"{extractor.name} sees images of {tuple(extractor.card['shape'])}, these are {x.shape[1:]}"
        return [passport.undefined(name, reason) for name in names(options)]
    probabilities = classify(extractor, x)
    classes, found = probabilities.shape[1], probabilities.argmax(axis=1)
    smallest = lambda rows: np.bincount(found[rows], minlength=classes).min() / len(rows)  # noqa: E731
    generator = np.random.default_rng(0)
    resampled = [smallest(generator.integers(0, len(x), len(x))) for _ in range(200)]
    protocol = data.protocol | {
        "N": len(x),
        "extractor": extractor.name,
        "extractor_sha256": extractor.sha256,
    }
    share = passport.Result(
        names(options)[0], float(smallest(np.arange(len(x)))), float(np.std(resampled)), "share", protocol
    )
    return [share, passport.mean(names(options)[1], probabilities.max(axis=1), "probability", protocol)]


def classify(extractor: lenet.Extractor, x: Float[np.ndarray, "N H W C"]) -> Float[np.ndarray, "N classes"]:
    """The extractor's class probabilities of images in [0, 1]."""

    @jax.jit
    def probabilities(part: Float[Array, "B H W C"]) -> Float[Array, "B classes"]:
        return jax.nn.softmax(extractor.features(part)["logits"])

    return np.concatenate([np.asarray(probabilities(x[start : start + BATCH])) for start in range(0, len(x), BATCH)])
