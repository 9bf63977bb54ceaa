"""What each direction of the latent space does: a slider moves every code at once, a strip shows the whole way."""

from __future__ import annotations

from typing import Any

import numpy as np

from latent.analysis import directions, spread, traversal
from latent.analysis.directions import Direction
from latent.report import images
from latent.report.evidence import Evidence
from latent.report.page import Absent, Section

TITLE = "Traversals"
STEPS = 13
EXTENT = 2.5
"""Standard deviations of the codes to either side."""

MOST = 10
"""Directions of a kind."""


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
    space, codes = evidence.space, evidence.codes
    means = codes["mean"] if codes is not None else space
    kl = codes["kl"] if codes is not None and "kl" in codes else None
    kl = kl.reshape(len(kl), -1) if kl is not None else None
    measured = spread.measure(means, space, kl if kl is not None and kl.shape == means.shape else None)
    found = []
    if len(evidence.latent_shape) == 1:  # an entry of a spatial code is one place's, and shows little
        top = measured.order[:MOST]
        told = measured.kl if measured.kl is not None else measured.variance_of_means
        word = "KL {:.2f} nats" if measured.kl is not None else "variance {:.2f}"
        axes = zip(directions.axes(space, top), [word.format(told[axis]) for axis in top], strict=True)
        found.append(("axes", "axes", list(axes)))
    if codes is None:
        return found  # draws of a normal prior have no components and no labels
    variance = means.var(axis=0, dtype=np.float64).sum()
    parts = directions.principal(means, min(MOST, means.shape[1], len(means)))
    shares = [f"{100 * part.scale**2 / max(variance, 1e-12):.0f}% of variance" for part in parts]
    found.append(("components", "principal components", list(zip(parts, shares, strict=True))))
    if evidence.label is not None and len(np.unique(evidence.label)) > 1:
        classes = directions.attributes(means, evidence.label)[:MOST]
        found.append(
            (
                "classes",
                "towards a class",
                [(along._replace(name=f"class {along.name}"), "logistic") for along in classes],
            )
        )
    return found


def origins(evidence: Evidence) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(name, code, picture) of where walks start: the mean code, and examples of several classes."""
    codes = evidence.codes
    centre = evidence.space.mean(axis=0)
    if codes is None:
        draws = evidence.space[:4]
        starts = [("mean of the prior", 0 * centre), *((f"draw {i + 1}", z) for i, z in enumerate(draws))]
        return [(name, z, evidence.decode(z[None])[0]) for name, z in starts]
    found = [("mean code", centre, evidence.decode(centre[None])[0])]
    rows = (
        range(4)
        if evidence.label is None
        else [int(np.flatnonzero(evidence.label == label)[0]) for label in np.unique(evidence.label)[:5]]
    )
    return found + [(f"{evidence.split} {evidence.rows[row]}", codes["mean"][row], evidence.x[row]) for row in rows]
