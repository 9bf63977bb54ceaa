"""What each direction of the latent space does: a slider moves every code at once, a strip shows the whole way."""

from __future__ import annotations

from typing import Any

import numpy as np

from latent.analysis import directions, traversal
from latent.analysis.directions import Direction
from latent.report import images
from latent.report.evidence import Evidence
from latent.report.page import Absent, Section
from latent.report.sections import statistics

TITLE = "Traversals"
STEPS = 13
EXTENT = 2.5
"""Standard deviations of the codes to either side."""

MOST = 12
"""Directions of a kind."""

DRAWS = 5
"""Draws of the prior that walks start from where there are no examples to encode."""


def section(evidence: Evidence) -> Section | Absent:
    """Needs a decoder, and images to look at."""
    if evidence.space is None:
        return Absent(TITLE, evidence.without("decode"))
    if not evidence.is_image:
        return Absent(TITLE, f"Examples of shape {evidence.spec.shape} are no pictures that a walk could show.")
    values = np.linspace(-EXTENT, EXTENT, STEPS)
    kinds, starts = chosen(evidence), origins(evidence)
    data: dict[str, Any] = {"steps": STEPS, "values": [round(float(v), 2) for v in values], "kinds": [], "sheets": {}}
    for key, title, found in kinds:
        walks = np.stack([[traversal.walk(z, along, values) for along, _ in found] for _, z, _ in starts])
        decoded = evidence.decode(walks.reshape(-1, walks.shape[-1]))
        data["sheets"][key] = images.sheet(decoded, side=48)
        names = [{"name": along.name, "note": told} for along, told in found]
        data["kinds"].append({"key": key, "title": title, "directions": names})
    data["starts"] = [{"name": name} for name, _, _ in starts]
    values_of = {
        "kinds": data["kinds"],
        "starts": [(name, images.uri(images.pixels(picture[None])[0])) for name, _, picture in starts],
        "steps": STEPS,
        "extent": EXTENT,
    }
    lead = (
        f"One coordinate moves, the rest of the code stays. The slider goes from {-EXTENT:g} to {EXTENT:g} standard "
        "deviations of the codes along each direction; 0 is their mean."
    )
    return Section(TITLE, lead, values_of, {}, data)


def chosen(evidence: Evidence) -> list[tuple[str, str, list[tuple[Direction, str]]]]:
    """(key, title, [(direction, note)]) of every kind that this run has."""
    if evidence.codes is None:
        return [("axes", "axes", _axes_by_effect(evidence))]  # draws of a normal prior: no components, no labels
    means, found = evidence.codes["mean"], []
    if len(evidence.latent_shape) == 1:  # an entry of a spatial code is one place's, and shows little
        found.append(("axes", "axes", _axes(evidence)))
    variance = means.var(axis=0, dtype=np.float64).sum()
    parts = directions.principal(means, min(MOST, means.shape[1], len(means)))
    shares = [f"{100 * part.scale**2 / max(variance, 1e-12):.0f}% of variance" for part in parts]
    found.append(("components", "principal components", list(zip(parts, shares, strict=True))))
    if evidence.label is not None and len(np.unique(evidence.label)) > 1:
        towards = directions.attributes(means, evidence.label)[:MOST]
        named = [(along._replace(name=f"class {along.name}"), "from all others") for along in towards]
        found.append(("classes", "towards a class", named))
    return found


def _axes(evidence: Evidence) -> list[tuple[Direction, str]]:
    """The axes that carry most: by KL where it is known by dimension, else by variance."""
    measured = statistics.measured(evidence)
    values, word = (
        (measured.kl, "KL {:.2f} nats")
        if measured.kl is not None
        else (
            measured.variance_of_means,
            "variance {:.3g}",
        )
    )
    top = measured.order[:MOST]
    return list(zip(directions.axes(evidence.space, top), [word.format(values[axis]) for axis in top], strict=True))


def _axes_by_effect(evidence: Evidence) -> list[tuple[Direction, str]]:
    """The axes that change the image most: those of a normal prior are alike but for what the decoder makes of them."""
    every = directions.axes(evidence.space, range(evidence.space.shape[1]))
    moved = traversal.effects(evidence.decode, evidence.space[:DRAWS], every)
    top = np.argsort(-moved, kind="stable")[:MOST]
    return [(every[axis], f"moves pixels by {moved[axis]:.2f}") for axis in top]


def origins(evidence: Evidence) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(name, code, picture) of where walks start: the mean code, and examples of several classes."""
    codes = evidence.codes
    centre = evidence.space.mean(axis=0)
    if codes is None:
        starts = [*((f"draw {i}", z) for i, z in enumerate(evidence.space[:DRAWS])), ("the prior's mean", 0 * centre)]
        return [(name, z, evidence.decode(z[None])[0]) for name, z in starts]
    found = [("mean code", centre, evidence.decode(centre[None])[0])]
    rows = (
        range(4)
        if evidence.label is None
        else [int(np.flatnonzero(evidence.label == label)[0]) for label in np.unique(evidence.label)[:5]]
    )
    return found + [(f"{evidence.split} {evidence.rows[row]}", codes["mean"][row], evidence.x[row]) for row in rows]
