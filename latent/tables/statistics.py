"""Intervals and tests over seeds. Pure functions of numbers; a single number has no interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

LEVEL = 0.95
RESAMPLES = 10_000


class Interval(NamedTuple):
    """Between `low` and `high`, at the level `LEVEL`."""

    low: float
    high: float


class Summary(NamedTuple):
    """A mean over n seeds with Student's and the bootstrap's interval; both are None where n is 1."""

    mean: float
    n: int
    student: Interval | None
    bootstrap: Interval | None


class Comparison(NamedTuple):
    """Value minus baseline over the n seeds that both have, with Student's interval of the mean difference and the p
    value of the paired t test. None where they do not exist: fewer than two pairs, or differences without spread."""

    difference: float
    n: int
    student: Interval | None
    p: float | None


def summarise(values: Sequence[float]) -> Summary:
    """Mean and 95% intervals of independent values, one a seed."""
    array = np.asarray(values, np.float64)
    mean = float(np.mean(array))
    if len(array) < 2:
        return Summary(mean, len(array), None, None)
    return Summary(mean, len(array), student_interval(array), bootstrap_interval(array))


def student_interval(values: Float[np.ndarray, "n"]) -> Interval:
    """mean -+ t(n - 1) s / sqrt(n): exact for normal values, wide for two or three of them, and rightly so."""
    from scipy import stats

    half = stats.t.ppf(0.5 + LEVEL / 2, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return Interval(float(np.mean(values) - half), float(np.mean(values) + half))


def bootstrap_interval(values: Float[np.ndarray, "n"]) -> Interval:
    """Percentiles of the means of `RESAMPLES` resamplings (Efron 1979), seeded. Too narrow below some ten seeds: it
    cannot leave the range of what was seen."""
    places = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[places].mean(axis=1), [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return Interval(float(low), float(high))


def compare(values: Mapping[int, float], baseline: Mapping[int, float]) -> Comparison | None:
    """Paired comparison of {seed: value}; None where no seed is common."""
    from scipy import stats

    seeds = sorted(values.keys() & baseline.keys())
    if not seeds:
        return None
    differences = np.array([values[seed] - baseline[seed] for seed in seeds], np.float64)
    mean, n = float(np.mean(differences)), len(seeds)
    if n < 2 or np.ptp(differences) == 0:
        return Comparison(mean, n, None, None)
    return Comparison(mean, n, student_interval(differences), float(stats.ttest_1samp(differences, 0.0).pvalue))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values corrected for their number (Holm 1979): the i-th smallest of m is multiplied by m - i + 1, never below
    one before it and at most 1. None stays None and does not count."""
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    reached = 0.0
    for rank, (p, place) in enumerate(order):
        reached = max(reached, min(1.0, p * (len(order) - rank)))
        adjusted[place] = reached
    return adjusted
