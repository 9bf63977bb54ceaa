"""How sure a classifier is of each sample's class and how evenly the classes are met: exp E KL(p(y|x) || p(y)).

The formula is that of the Inception score (Salimans et al. 2016, arXiv 1606.03498, section 4). It is called so with
Inception's 1000 classes only; here it carries its classifier's name and lies between 1 and that one's classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import rel_entr

from latent.evaluate import EvaluationData
from latent.extractors import lenet
from latent.metrics import extraction, passport, uncertainty
from latent.types import Model, State

needs = {"sample"}
RESAMPLINGS = 200


def names(options: Any) -> tuple[str, ...]:
    """Names of the results; UserError for a classifier that does not ship."""
    extraction.require("class_score", options, least=2, classes=True)
    return (f"class_score_{options.extractor}",)


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
    extractor = lenet.load(options.extractor)
    x = data.samples(state, options.num_samples)
    if reason := extraction.misfit(extractor, x):
        return [passport.undefined(name, reason)]
    probabilities = extraction.outputs(extractor, x)["probabilities"]
    error = float(uncertainty.bootstrap(of_probabilities, [probabilities], RESAMPLINGS))
    protocol = data.protocol | {"N": len(x)} | extraction.protocol(extractor)
    return [passport.Result(name, of_probabilities(probabilities), error, "classes", protocol)]
