"""Examples above what decoder makes of their mean codes: unselected ones, and the worst."""

from __future__ import annotations

import numpy as np

from latent.report import images
from latent.report.evidence import Evidence
from latent.report.page import Absent, Section, number, rounded

TITLE = "Reconstructions"
SHOWN = 16


def section(evidence: Evidence) -> Section | Absent:
    """Needs an encoder and a decoder."""
    if evidence.copies is None:
        missing = "decode" if evidence.codes is not None else "encode"
        return Absent(TITLE, evidence.without(missing))
    error = evidence.error
    lead = (
        f"Held-out examples ({evidence.split}) above their copies from the mean code. "
        f"Mean squared error a value {number(error.mean())} over {number(len(error))} examples."
    )
    if not evidence.is_image:
        return Section(TITLE, lead, {"groups": []}, {"reconstructions-points": _points(evidence)})
    worst = np.argsort(-error, kind="stable")[:SHOWN]
    middle = np.argsort(error, kind="stable")[len(error) // 2 - SHOWN // 4 : len(error) // 2 + SHOWN // 4]
    chosen = {"Not selected": np.arange(min(SHOWN, len(error))), "The worst": worst, "Around the median": middle}
    groups = [
        (
            name,
            list(
                zip(
                    images.each(evidence.x[rows]),
                    images.each(evidence.copies[rows]),
                    rounded(error[rows], 2),
                    strict=True,
                )
            ),
        )
        for name, rows in chosen.items()
    ]
    return Section(TITLE, lead, {"groups": groups})


def _points(evidence: Evidence) -> dict:
    flat = lambda x: x.reshape(len(x), -1)[:, :2]  # noqa: E731
    marks = [("examples", flat(evidence.x)), ("reconstructions", flat(evidence.copies))]
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": rounded(x[:, 0]),
            "y": rounded(x[:, -1]),
            "marker": {"size": 4, "opacity": 0.6},
        }
        for name, x in marks
    ]
    return {"data": data, "layout": {"equal": True}}
