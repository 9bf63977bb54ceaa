"""What a report warns of, in plain words, and what it has checked without finding anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from latent.report.evidence import Evidence
from latent.report.sections import map as maps
from latent.report.sections import metrics, neighbours, statistics

COLLAPSED = 0.01
"""Nats below which a dimension tells the decoder nothing."""

UNTRUSTED, UNSTABLE = 0.85, 0.4
"""Trustworthiness and share of neighbours kept between seeds below which a map is warned of."""


class Finding(NamedTuple):
    """`level` is warning, note or good; `text` says what was measured and what it means."""

    level: str
    title: str
    text: str


def of(evidence: Evidence) -> list[Finding]:
    """All findings of the sections that are shown, warnings first."""
    found = [finding for section, check in CHECKS if section in evidence.sections for finding in check(evidence)]
    return sorted(found, key=lambda finding: ("warning", "note", "good").index(finding.level))


def _training(evidence: Evidence) -> list[Finding]:
    halted, steps = int(evidence.run.state.halted), evidence.config["train"]["steps"]
    if halted >= 0:
        text = f"Values stopped being finite at step {halted}; the weights shown are those before it."
        return [Finding("warning", "Training broke off", text)]
    if evidence.run.step < steps:
        text = f"This is step {evidence.run.step} of {steps}: what follows is not the finished model."
        return [Finding("note", "Not the last step", text)]
    return []


def _collapse(evidence: Evidence) -> list[Finding]:
    if evidence.codes is None:
        return []
    found = statistics.measured(evidence)
    count = len(found.variance_of_means)
    if found.kl is not None:
        dead = int(np.sum(found.kl < COLLAPSED))
        what = f"{dead} of {count} dimensions carry less than {COLLAPSED} nats"
    else:
        dead = int(np.sum(~found.active))
        what = f"{dead} of {count} dimensions do not move with the example"
    if dead == count:
        text = f"{what}: the code says nothing of the example. A lower beta, a KL warm-up or free bits often help."
        return [Finding("warning", "Posterior collapse", text)]
    if dead >= count / 2:
        text = f"{what}, so the model uses {count - dead}. That is normal for a wide code, and costs nothing but room."
        return [Finding("note", "Unused dimensions", text)]
    return [Finding("good", "Dimensions in use", f"{count - dead} of {count} dimensions carry something.")]


def _codebook(evidence: Evidence) -> list[Finding]:
    size = statistics.codebook_size(evidence)
    if not size:
        return []
    used = len(np.unique(evidence.codes["indices"]))
    text = f"{size - used} of {size} codes were never chosen for {len(evidence.x)} {evidence.split} examples."
    return [Finding("warning", "Dead codes", text) if used < size / 2 else Finding("good", "Codebook in use", text)]


def _prior(evidence: Evidence) -> list[Finding]:
    """Whether draws of the standard normal prior land where codes are."""
    normal = evidence.config["model"].get("prior") == "standard_normal"
    if evidence.codes is None or not normal or "log_scale" not in evidence.codes:
        return []
    found = statistics.measured(evidence)
    off = (np.abs(found.centre) > 0.5) | (found.scale < 0.6) | (found.scale > 1.6)
    if not off.any():
        text = "Every dimension of the aggregate posterior has a mean within 0.5 of 0 and a spread between 0.6 and 1.6."
        return [Finding("good", "Codes fill the prior", text)]
    worst = int(np.argmax((np.abs(found.centre) + np.abs(np.log(found.scale + 1e-9))) * off))
    text = (
        f"In {off.sum()} of {len(off)} dimensions the aggregate posterior is not where the prior is (z{worst}: mean "
        f"{found.centre[worst]:.2f}, spread {found.scale[worst]:.2f}): samples come from places with few codes."
    )
    return [Finding("warning", "Codes miss the prior", text)]


def _memorisation(evidence: Evidence) -> list[Finding]:
    if evidence.samples is None or evidence.split == "train":
        return []
    share, usual = neighbours.compared(evidence).copies
    text = (
        f"{100 * share:.1f}% of {len(evidence.samples)} samples are near copies of a training example; of held-out "
        f"examples {100 * usual:.1f}% are."
    )
    if share > usual + 0.02:
        return [Finding("warning", "Memorisation", text + " The model gives back what it was shown.")]
    return [Finding("good", "No copies", text)]


def _map(evidence: Evidence) -> list[Finding]:
    """Of the map that the page opens with, how far it can be trusted; of every seeded one, whether it stays."""
    drawn, found = maps.drawn(evidence), []
    for shown in drawn:
        if shown.stability is not None and shown.stability < UNSTABLE:
            text = (
                f"Only {100 * shown.stability:.0f}% of a point's neighbours on the {maps.TITLES[shown.map.method]} map "
                "stay when the seed changes: read groups off it, not details."
            )
            found.append(Finding("warning", "Unstable map", text))
    first = drawn[0]
    title, note = maps.TITLES[first.map.method], maps.note(first)
    if first.map.trustworthiness < UNTRUSTED:
        text = f"Many neighbours on the {title} map are none in the space itself ({note})."
        found.append(Finding("warning", "Map distorts", text))
    elif not found:
        found.append(Finding("good", "Map can be read", f"{title}: {note}."))
    return found


def _evaluation(evidence: Evidence) -> list[Finding]:
    rows = metrics.rows(evidence)
    if any(row["protocol"].get("split") == evidence.split and row["value"] is not None for row in rows):
        return []
    text = (
        f"No metric was measured on {evidence.split}: python -m experiments.evaluate --workdir={evidence.run.workdir}"
    )
    return [Finding("note", "Not evaluated", text)]


CHECKS: tuple[tuple[str, Callable[[Evidence], list[Finding]]], ...] = (
    ("overview", _training),
    ("statistics", _collapse),
    ("statistics", _codebook),
    ("statistics", _prior),
    ("neighbours", _memorisation),
    ("map", _map),
    ("metrics", _evaluation),
)
"""(the section that shows what is checked, the check): what is not shown costs nothing."""
