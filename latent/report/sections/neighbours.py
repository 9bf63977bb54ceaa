"""Samples beside the training examples that they are nearest to: has the model made something, or kept something?"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from latent.analysis import neighbours
from latent.report import images
from latent.report.evidence import Evidence
from latent.report.page import Absent, Section, number
from latent.report.plots import Plot, areas, axis, rounded

TITLE = "Nearest training examples"
SHOWN = 12
OTHERS = 5
COUNT = 51
"""The nearest one, and 50 others that say what near is there."""


class Compared(NamedTuple):
    """Neighbours of samples and, for comparison, of held-out examples among the training examples."""

    samples: neighbours.Neighbours
    held_out: neighbours.Neighbours

    @property
    def copies(self) -> tuple[float, float]:
        """Share of samples, and of held-out examples, that are copies of a training example."""
        return tuple(float(neighbours.copies(found).mean()) for found in self)


@functools.lru_cache(maxsize=1)
def compared(evidence: Evidence) -> Compared:
    """Needs samples."""
    held_out, count = evidence.x[: len(evidence.samples)], min(COUNT, len(evidence.train))
    return Compared(*(neighbours.nearest(x, evidence.train, count) for x in (evidence.samples, held_out)))


def section(evidence: Evidence) -> Section | Absent:
    """Needs samples, and a split that is not the training one."""
    if evidence.samples is None:
        return Absent(TITLE, evidence.without("sample"))
    if evidence.split == "train":
        return Absent(TITLE, "it needs held-out examples to compare with: --split=validation or test")
    found = compared(evidence)
    rows = _rows(evidence, found.samples) if evidence.is_image else []
    share, usual = found.copies
    lead = (
        f"By Euclidean distance, among {number(len(evidence.train))} training examples. A copy is what is nearer to "
        f"one of them than a third of its mean distance to the next {COUNT - 1}: {100 * share:.1f}% of "
        f"{number(len(evidence.samples))} samples, {100 * usual:.1f}% of held-out examples."
    )
    return Section(TITLE, lead, {"rows": rows}, {"neighbour-distances": _histogram(found)})


def _rows(evidence: Evidence, found: neighbours.Neighbours) -> list[tuple[str, str, list[tuple[str, float]]]]:
    """(name, sample, [(training example, distance)]) of the first samples, then of those nearest to training."""
    nearest = np.argsort(found.distance[:, 0], kind="stable")
    named = [(f"sample {row}", row) for row in range(SHOWN // 2)]
    named += [(f"of all the nearest: sample {row}", row) for row in nearest[: SHOWN // 2]]
    rows = []
    for name, row in named:
        near = images.each(evidence.train[found.index[row, :OTHERS]])
        pairs = list(zip(near, rounded(found.distance[row, :OTHERS], 3), strict=True))
        rows.append((name, images.each(evidence.samples[row : row + 1])[0], pairs))
    return rows


def _histogram(found: Compared) -> Plot:
    both = {"samples": found.samples.distance[:, 0], "held-out examples": found.held_out.distance[:, 0]}
    edges = np.linspace(0.0, 1.02 * max(float(values.max()) for values in both.values()) + 1e-9, 41)
    middles = (edges[1:] + edges[:-1]) / 2
    shares = {name: (middles, np.histogram(values, edges)[0] / len(values)) for name, values in both.items()}
    title = "distance to the nearest training example"
    return areas(shares, xaxis=axis(title), yaxis=axis("share", tickformat=".0%"))
