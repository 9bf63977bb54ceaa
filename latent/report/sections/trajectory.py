"""How a diffusion model's samples come about: what was denoised, step by step, and the data it was taken for."""

from __future__ import annotations

import inspect

import numpy as np

from latent.report import images
from latent.report.evidence import Evidence
from latent.report.page import Absent, Section

TITLE = "From noise to sample"
SHOWN = 6
COLUMNS = 12


def section(evidence: Evidence) -> Section | Absent:
    """Needs a family whose `sample` can tell its trajectory."""
    known = inspect.signature(evidence.model.sample).parameters if evidence.model.sample is not None else {}
    if "trajectory" not in known:
        return Absent(TITLE, f"This {evidence.family} does not make its samples step by step.")
    if not evidence.is_image:
        return Absent(TITLE, f"Examples of shape {evidence.spec.shape} are no pictures to watch.")
    classes = None if evidence.sample_classes is None else evidence.sample_classes[:SHOWN]
    seen, data = np.asarray(evidence.run.sample(SHOWN, 0, classes, trajectory=True))
    steps = len(seen)
    chosen = np.unique(np.linspace(0, steps - 1, min(COLUMNS, steps)).round().astype(int))
    rows = [(images.strip(seen[chosen, one]), images.strip(data[chosen, one])) for one in range(SHOWN)]
    lead = (
        f"The first samples at {len(chosen)} of {steps} steps. Above: the noisy state, decoded. Below: the data that "
        "the denoiser takes it for at that step."
    )
    return Section(TITLE, lead, {"rows": rows})
