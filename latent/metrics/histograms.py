"""Entropy and mutual information of discrete variables, in nats, and codes made discrete by equal-width bins."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

BINS = 20
"""Bins per code, as in Locatello et al. 2019 (arXiv 1811.12359), appendix."""


def discretised(codes: Float[np.ndarray, "N D"], bins: int = BINS) -> Int[np.ndarray, "N D"]:
    """The bin of every code, of equal-width bins over the range of its dimension."""
    columns = []
    for column in codes.T:
        edges = np.histogram(column, bins)[1][:-1]
        columns.append(np.digitize(column, edges))
    return np.stack(columns, axis=1)


def mutual_information(first: Int[np.ndarray, "N"], second: Int[np.ndarray, "N"]) -> float:
    """I(first; second) of the joint histogram: exactly the plug-in value."""
    rows, columns = (np.unique(values, return_inverse=True)[1] for values in (first, second))
    joint = np.bincount(rows * (columns.max() + 1) + columns, minlength=(rows.max() + 1) * (columns.max() + 1))
    joint = joint.reshape(rows.max() + 1, columns.max() + 1) / len(rows)
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    seen = joint > 0
    return max(0.0, float(np.sum(joint[seen] * np.log(joint[seen] / independent[seen]))))


def entropy(values: Int[np.ndarray, "N"]) -> float:
    """H(values) of the histogram."""
    return mutual_information(values, values)


def mutual_informations(bins: Int[np.ndarray, "N D"], factors: Int[np.ndarray, "N F"]) -> Float[np.ndarray, "D F"]:
    """I(code; factor) for every pair."""
    return np.array([[mutual_information(code, factor) for factor in factors.T] for code in bins.T])


def top_gap(scores: Float[np.ndarray, "D F"]) -> Float[np.ndarray, "F"]:
    """How far the best code of every factor is ahead of the second best (of 0 where there is one code only)."""
    ordered = np.sort(np.concatenate([scores, np.zeros((max(0, 2 - len(scores)), scores.shape[1]))]), axis=0)
    return ordered[-1] - ordered[-2]
