"""How alike the layers of a net are, and those of another run: the centred kernel alignment of what they say."""

from __future__ import annotations

from typing import Any

import numpy as np

from latent.analysis import layers, similarity
from latent.report import inside
from latent.report.evidence import Evidence
from latent.report.page import Absent, Section, number
from latent.report.plots import Plot, heat
from latent.run import Run

TITLE = "Likeness of layers"
COMPARED = 1000
"""Examples whose representations are compared."""


def section(evidence: Evidence) -> Section | Absent:
    """Needs two representations: two layers, a layer and a code, or another run's."""
    rows = evidence.rows[:COMPARED]
    own = _representations(evidence.run, evidence.split, rows)
    others = None if evidence.other is None else _representations(evidence.other, evidence.split, rows)
    if not own or (len(own) < 2 and not others):
        told = "one code and no convolutions" if own else "no layers or codes of its own"
        return Absent(TITLE, f"This {evidence.family} has {told}: there is nothing to compare it with but another run.")
    plots, figures = {"cka-own": _plot(own, own)}, [{"plot": "cka-own", "title": "Layers of this run"}]
    if others:
        plots["cka-other"] = _plot(own, others)
        figures.append({"plot": "cka-other", "title": f"This run (down) and {evidence.other.workdir} (across)"})
    lead = (
        f"Linear centred kernel alignment, debiased, over {number(len(rows))} examples; feature maps averaged to 4 by "
        "4 places. 1: the same up to rotation and scale. About 0: nothing in common. Empty: a layer that never varies."
    )
    return Section(TITLE, lead, {"figures": figures}, plots)


def _representations(run: Run, split: str, rows: np.ndarray) -> dict[str, Any]:
    """{name: vectors [N, d]}: every convolution of the net that looks at images, and the mean code."""
    found = {name: layers.pooled(maps) for name, maps in inside.activations(run, split, rows).items()}
    if run.model.encode is not None:
        found["code"] = run.encode_split(split, rows=rows)["mean"].reshape(len(rows), -1)
    return found


def _plot(down: dict[str, Any], across: dict[str, Any]) -> Plot:
    values = similarity.matrix(down, across)
    plot = heat(np.nan_to_num(values), list(across), list(down), "%{y} and %{x}: %{z:.3f}", zmin=0, zmax=1)
    cells = plot["data"][0]["z"]
    plot["data"][0]["z"] = [
        [None if np.isnan(value) else cell for cell, value in zip(*rows, strict=True)]
        for rows in zip(cells, values, strict=True)
    ]
    return plot
