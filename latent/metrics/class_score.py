"""How sure a classifier is of each sample's class and how evenly the classes are met: exp E KL(p(y|x) || p(y)).

The formula is that of the Inception score (Salimans et al. 2016, arXiv 1606.03498, section 4). It is called so with
Inception's classes only; of others it carries the classifier's name. It lies between 1 and the number of classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import rel_entr

from latent.errors import UserError
from latent.evaluation_data import EvaluationData
from latent.extractors import catalogue
from latent.metrics import extraction, passport, uncertainty
from latent.types import Model, State

needs = {"sample"}
RESAMPLINGS = 200


def names(options: Any) -> tuple[str, ...]:
    """Names of the results; UserError for an extractor that there is not, or that knows no classes."""
    extraction.require("class_score", options, least=2)
    if not catalogue.knows_classes(options.extractor):
        raise UserError(f"class_score.extractor={options.extractor!r} knows no classes, which this score is made of.")
    return (extraction.title("class_score", "inception_score", options.extractor),)


def of_probabilities(probabilities: Float[np.ndarray, "N C"]) -> float:
    """exp of the mean divergence of every row from the mean row; 0 log 0 = 0."""
    rows = np.asarray(probabilities, np.float64)
    rows = rows / rows.sum(axis=1, keepdims=True)  # float32 rows add up to 1 within 1e-7
    return float(np.exp(np.mean(np.sum(rel_entr(rows, rows.mean(axis=0)), axis=1))))


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Of `options.num_samples` samples, all at once, by the classifier `options.extractor`; the standard error is the
    bootstrap's. It falls short of its limit for few samples, so it compares at equal N only, and it never looks at
    data: a generator of one perfect image a class has the highest score there is."""
    (name,) = names(options)
    x = data.samples(state, options.num_samples)
    extractor = catalogue.load(options.extractor, x.shape[1:])
    if reason := extraction.misfit(extractor, x):
        return [passport.undefined(name, reason)]
    probabilities = extraction.outputs(extractor, x)["probabilities"]
    error = float(uncertainty.bootstrap(of_probabilities, [probabilities], RESAMPLINGS))
    protocol = data.protocol | {"N": len(x)} | extraction.protocol(extractor)
    return [passport.Result(name, of_probabilities(probabilities), error, "classes", protocol)]
