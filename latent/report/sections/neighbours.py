"""Samples beside the training examples that they are nearest to: has the model made something, or kept something?"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from latent.analysis import neighbours
from latent.report import images
from latent.report.evidence import Evidence
from latent.report.page import Absent, Section, number, rounded

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
    held_out = evidence.x[: len(evidence.samples)]
    return Compared(*(neighbours.nearest(x, evidence.train, COUNT) for x in (evidence.samples, held_out)))


def section(evidence: Evidence) -> Section | Absent:
    """Needs samples."""
    if evidence.samples is None:
        return Absent(TITLE, evidence.without("sample"))
    found = compared(evidence)
    rows = []
    if evidence.is_image:
        order = np.argsort(found.samples.distance[:, 0], kind="stable")
        chosen = np.concatenate([np.arange(SHOWN // 2), order[: SHOWN // 2]])
        for place, row in enumerate(chosen):
            near = found.samples.index[row, :OTHERS]
            told = ("sample" if place < SHOWN // 2 else "nearest of all: sample") + f" {row}"
            distance = rounded(found.samples.distance[row, :OTHERS], 3)
            rows.append(
                (
                    told,
                    images.each(evidence.samples[row : row + 1])[0],
                    list(zip(images.each(evidence.train[near]), distance, strict=True)),
                )
            )
    share, usual = found.copies
    lead = (
        f"Euclidean distance of values, to {number(len(evidence.train))} training examples. {100 * share:.1f}% of "
        f"{number(len(found.samples.index))} samples are nearer to one training example than a third of their mean distance to the "
        f"next {COUNT - 1}; among held-out examples {100 * usual:.1f}% are."
    )
    return Section(TITLE, lead, {"rows": rows}, {"neighbour-distances": _histogram(found)})


def _histogram(found: Compared) -> dict:
    both = [("samples", found.samples.distance[:, 0]), ("held-out examples", found.held_out.distance[:, 0])]
    edges = np.linspace(0.0, max(float(values.max()) for _, values in both) * 1.02 + 1e-9, 41)
    data = []
    for name, values in both:
        shares = np.histogram(values, edges)[0] / len(values)
        data.append(
            {
                "type": "bar",
                "name": name,
                "x": rounded((edges[1:] + edges[:-1]) / 2),
                "y": rounded(shares),
                "opacity": 0.65,
                "hovertemplate": "distance %{x:.2f}: %{y:.1%}<extra>" + name + "</extra>",
            }
        )
    layout = {
        "barmode": "overlay",
        "bargap": 0,
        "xaxis": {"title": {"text": "distance to the nearest training example"}},
        "yaxis": {"title": {"text": "share"}, "tickformat": ".0%"},
    }
    return {"data": data, "layout": layout}
