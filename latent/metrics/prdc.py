"""Precision, recall, density and coverage: samples and data judged by whose neighbourhoods they lie in.

Improved precision and recall: Kynkaanniemi et al. 2019 (arXiv 1904.06991), eqs. 1 and 2. Density and coverage: Naeem
et al. 2020 (arXiv 2002.09797), eqs. 2 and 3, which one outlier cannot inflate. A neighbourhood is the open ball up to
the k-th nearest other member of the set.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from latent.errors import UserError
from latent.evaluation_data import EvaluationData
from latent.metrics import extraction, passport, uncertainty
from latent.types import Model, State

needs = {"sample"}
CHUNK = 1024
"""Rows of a distance matrix held at a time."""
TIE = 1e-10
"""Squared distances this close, relative to the points' squared length, are equal: rounding must not break ties."""
HALVINGS = 10


def names(options: Any) -> tuple[str, ...]:
    """Names of the results; UserError for an extractor that there is not, or too few samples for k neighbours."""
    passport.require_counts("prdc", options, k=1)
    extraction.require("prdc", options, least=_least(options.k))
    return tuple(f"{score}_{options.extractor}" for score in ("precision", "recall", "density", "coverage"))


def _least(k: int) -> int:
    """So many that each half, which the standard error comes from, has k neighbours for everyone."""
    return 2 * (k + 1)


def _squared_distances(a: Float[np.ndarray, "N d"], b: Float[np.ndarray, "M d"]) -> Float[np.ndarray, "N M"]:
    return np.sum(a * a, axis=1)[:, None] + np.sum(b * b, axis=1) - 2 * (a @ b.T)


def _radii(x: Float[np.ndarray, "N d"], k: int) -> Float[np.ndarray, "N"]:
    """Squared distance of every point to its k-th neighbour among the others."""
    radii = []
    for start in range(0, len(x), CHUNK):
        squared = _squared_distances(x[start : start + CHUNK], x)
        rows = np.arange(len(squared))
        squared[rows, start + rows] = -np.inf  # itself, first whatever rounding says; the k-th other one comes k later
        radii.append(np.partition(squared, k, axis=1)[:, k])
    return np.maximum(np.concatenate(radii), 0.0)


def of_features(real: Float[np.ndarray, "N d"], fake: Float[np.ndarray, "M d"], k: int = 5) -> Float[np.ndarray, "4"]:
    """Precision, recall, density and coverage, in float64; UserError for sets of fewer than k + 1.

    precision  share of samples inside a neighbourhood of data        density   mean number of those it is in, over k
    recall     share of data inside a neighbourhood of samples        coverage  share of data with a sample in theirs
    """
    if min(len(real), len(fake)) <= k:
        counts = f"{len(fake)} and {len(real)}"
        raise UserError(f"k={k} neighbours need at least {k + 1} samples and examples, not {counts}.")
    centre = np.mean(real, axis=0, dtype=np.float64)  # distances keep more digits near the origin
    real, fake = real - centre, fake - centre
    radii_real, radii_fake = _radii(real, k), _radii(fake, k)
    length_fake = np.sum(fake * fake, axis=1)
    balls, recalled, covered = np.zeros(len(fake), np.int64), np.zeros(len(real), bool), np.zeros(len(real), bool)
    for start in range(0, len(real), CHUNK):
        chosen = slice(start, start + CHUNK)
        squared = _squared_distances(real[chosen], fake)
        squared += TIE * (np.sum(real[chosen] ** 2, axis=1)[:, None] + length_fake)
        in_real = squared < radii_real[chosen, None]
        balls += in_real.sum(axis=0)
        covered[chosen] = in_real.any(axis=1)
        recalled[chosen] = (squared < radii_fake).any(axis=1)
    return np.array([np.mean(balls > 0), np.mean(recalled), np.mean(balls) / k, np.mean(covered)])


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Of `options.num_samples` samples against the split, `options.k` neighbours, on the features of
    `options.extractor`.

    The balls shrink as sets grow: compare at equal N only. Standard errors come from halves of both sets.
    """
    found = names(options)
    compared = extraction.of_samples(options, state, data)
    if not isinstance(compared, str) and len(compared.real) < _least(options.k):
        compared = f"prdc.k={options.k} needs at least {_least(options.k)} examples, not {len(compared.real)}"
    if isinstance(compared, str):
        return [passport.undefined(name, compared) for name in found]
    score = lambda real, fake: of_features(real, fake, options.k)  # noqa: E731
    sets = compared.real, compared.fake
    errors = uncertainty.by_halves(score, sets, HALVINGS)
    protocol = compared.protocol | {"k": options.k}
    units = ("share", "share", "balls per neighbour", "share")
    return [
        passport.Result(name, float(value), float(error), unit, protocol)
        for name, value, error, unit in zip(found, score(*sets), errors, units, strict=True)
    ]
