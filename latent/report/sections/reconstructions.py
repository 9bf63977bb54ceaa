"""Examples above what decoder makes of their mean codes: unselected ones, and the worst."""

from __future__ import annotations

import numpy as np

from latent.report import images
from latent.report.evidence import Evidence
from latent.report.page import Absent, Section, number
from latent.report.plots import points, rounded

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
        clouds = {"examples": evidence.x, "reconstructions": evidence.copies}
        return Section(TITLE, lead, {"groups": []}, {"reconstructions-points": points(clouds)})
    worst = np.argsort(-error, kind="stable")[:SHOWN]
    middle = np.argsort(error, kind="stable")[max(0, (len(error) - SHOWN) // 2) :][:SHOWN]
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
