"""Directions in a latent space: its axes, its principal components, and what labels point at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from latent.errors import unknown_name


class Direction(NamedTuple):
    """A unit vector, and mean and standard deviation of the codes' coordinate along it."""

    name: str
    vector: Float[np.ndarray, "d"]
    centre: float
    scale: float


def direction(name: str, vector: Float[np.ndarray, "d"], codes: Float[np.ndarray, "N d"]) -> Direction:
    """The direction of a vector of any length, measured on codes."""
    unit = np.asarray(vector, np.float64) / np.linalg.norm(vector)
    coordinates = np.asarray(codes, np.float64) @ unit
    return Direction(name, unit, float(coordinates.mean()), float(coordinates.std()))


def axes(codes: Float[np.ndarray, "N d"], chosen: Sequence[int] | Int[np.ndarray, "k"]) -> list[Direction]:
    """The coordinate axes that are asked for, in that order."""
    identity = np.eye(codes.shape[1])
    return [direction(f"z{axis}", identity[axis], codes) for axis in chosen]


def principal(codes: Float[np.ndarray, "N d"], count: int) -> list[Direction]:
    """The first `count` principal components of the codes, the widest first."""
    centred = np.asarray(codes, np.float64) - codes.mean(axis=0, dtype=np.float64)
    _, _, rows = np.linalg.svd(centred, full_matrices=False)
    # The sign of a component is free: its largest entry is made positive, so that a repeated report looks the same.
    rows = rows * np.sign(rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)])[:, None]
    return [direction(f"component {number}", row, codes) for number, row in enumerate(rows[:count], 1)]


def _mean_vector(codes: Float[np.ndarray, "N d"], has: np.ndarray) -> Float[np.ndarray, "d"]:
    return codes[has].mean(axis=0) - codes[~has].mean(axis=0)


def _logistic_vector(codes: Float[np.ndarray, "N d"], has: np.ndarray) -> Float[np.ndarray, "d"]:
    from sklearn.linear_model import LogisticRegression

    spread = codes.std(axis=0) + 1e-12  # the fit is on standardised codes; its normal is given in the codes' own units
    return LogisticRegression(max_iter=1000).fit(codes / spread, has).coef_[0] / spread


METHODS = {"mean": _mean_vector, "logistic": _logistic_vector}


def attributes(
    codes: Float[np.ndarray, "N d"], labels: Int[np.ndarray, "N"], method: str = "logistic"
) -> list[Direction]:
    """For every label the direction towards it from all others: the difference of means ("mean", White 2016, arXiv
    1609.04468, section 3) or the normal of a logistic regression's boundary ("logistic", Shen et al. 2020, arXiv
    1907.10786, section 2). Labels that all or fewer than two codes have are left out."""
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    codes = np.asarray(codes, np.float64)
    found = []
    for label in np.unique(labels):
        has = labels == label
        if 2 <= has.sum() < len(has):
            found.append(direction(str(label), METHODS[method](codes, has), codes))
    return found
