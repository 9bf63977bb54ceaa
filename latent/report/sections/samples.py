"""What the model makes by itself, not selected; a row a class where it can be asked for classes."""

from __future__ import annotations

import numpy as np

from latent.report import images
from latent.report.evidence import Evidence
from latent.report.page import Absent, Section
from latent.report.plots import points

TITLE = "Samples"
SHOWN = 64
PER_CLASS = 12


def section(evidence: Evidence) -> Section | Absent:
    """Needs a family that samples."""
    if evidence.samples is None:
        return Absent(TITLE, evidence.without("sample"))
    lead = "Drawn with seed 0, not selected."
    if not evidence.is_image:
        clouds = {"data": evidence.x, "samples": evidence.samples}
        return Section(TITLE, lead, {"rows": [], "plain": []}, {"samples-points": points(clouds)})
    if evidence.sample_classes is None:
        return Section(TITLE, lead, {"rows": [], "plain": images.each(evidence.samples[:SHOWN])})
    rows = []
    for label in range(min(evidence.model.classes, 20)):
        mine = np.flatnonzero(evidence.sample_classes == label)[:PER_CLASS]
        rows.append((label, images.each(evidence.samples[mine])))
    return Section(TITLE, lead + " Every row was asked to be one class.", {"rows": rows, "plain": []})
