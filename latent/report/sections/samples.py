"""What the model makes by itself, not selected; a row a class where it can be asked for classes."""

from __future__ import annotations

import numpy as np

from latent.report import images
from latent.report.evidence import Evidence
from latent.report.page import Absent, Section, number, rounded

TITLE = "Samples"
SHOWN = 64
PER_CLASS = 12


def section(evidence: Evidence) -> Section | Absent:
    """Needs a family that samples."""
    if evidence.samples is None:
        return Absent(TITLE, evidence.without("sample"))
    lead = "Drawn with seed 0 and not selected: the same numbers give the same samples on every machine of a kind."
    if not evidence.is_image:
        return Section(TITLE, lead, {"rows": [], "plain": []}, {"samples-points": _points(evidence)})
    if evidence.sample_classes is None:
        return Section(TITLE, lead, {"rows": [], "plain": images.each(evidence.samples[:SHOWN])})
    rows = []
    for label in range(min(evidence.model.classes, 20)):
        mine = np.flatnonzero(evidence.sample_classes == label)[:PER_CLASS]
        rows.append((label, images.each(evidence.samples[mine])))
    return Section(TITLE, lead + " Every row was asked to be one class.", {"rows": rows, "plain": []})


def _points(evidence: Evidence) -> dict:
    """The first two coordinates of samples on those of data."""
    flat = lambda x: x.reshape(len(x), -1)  # noqa: E731
    marks = [("data", flat(evidence.x)), ("samples", flat(evidence.samples))]
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": f"{name} ({number(len(x))})",
            "x": rounded(x[:, 0]),
            "y": rounded(x[:, min(1, x.shape[1] - 1)]),
            "marker": {"size": 4, "opacity": 0.55},
        }
        for name, x in marks
    ]
    return {"data": data, "layout": {"equal": True}}
