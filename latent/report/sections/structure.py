"""Classes and clusters in the latent space: how far apart, what each looks like, and arithmetic with them."""

from __future__ import annotations

import numpy as np

from latent.analysis import attributes, clusters
from latent.report import images
from latent.report.evidence import Evidence
from latent.report.page import Absent, Section, number
from latent.report.plots import Plot, axis, heat

TITLE = "Classes and clusters"
EXEMPLARS = 10
MOST = 12
"""Classes and clusters that are shown."""


def section(evidence: Evidence) -> Section | Absent:
    """Needs an encoder."""
    if evidence.codes is None:
        return Absent(TITLE, evidence.without("encode"))
    label, found = evidence.label, evidence.cluster
    classes = 0 if label is None else len(np.unique(label))
    plots = {}
    lead = f"k-means finds {found.max() + 1} clusters in the mean codes."
    if classes > 1:
        from sklearn.metrics import adjusted_rand_score

        agreement = adjusted_rand_score(label, found)
        lead += (
            " Their agreement with the classes, which it has not seen: adjusted Rand index "
            f"{agreement:.2f} (1 is the same grouping, 0 chance)."
        )
        plots["class-distances"] = _heat(evidence)
    values = {
        "distances": classes > 1,
        "clusters": _exemplars(evidence, found) if evidence.is_image else [],
        "exchange": _exchange(evidence) if classes > 1 and evidence.is_image and evidence.copies is not None else [],
        "exchanged_for": [] if label is None else np.unique(label)[:MOST].tolist(),
    }
    return Section(TITLE, lead, values, plots)


def _heat(evidence: Evidence) -> Plot:
    names = [str(label) for label in np.unique(evidence.label)]
    distances = clusters.class_distances(evidence.codes["mean"], evidence.label)
    across = axis("class", type="category")
    told = "class %{y} to class %{x}: %{z:.2f}"
    return heat(distances, names, names, told, layout={"xaxis": across, "yaxis": axis("class"), "square": True})


def _exemplars(evidence: Evidence, found: np.ndarray) -> list[tuple[str, str, list[str]]]:
    """(name, what is in it, the members nearest to its centre) of the largest clusters."""
    means, rows = evidence.codes["mean"], []
    for cluster in range(min(MOST, int(found.max()) + 1)):
        members = np.flatnonzero(found == cluster)
        distance = np.linalg.norm(means[members] - means[members].mean(axis=0), axis=1)
        told = f"{number(len(members))} codes"
        if evidence.label is not None:
            counts = np.bincount(evidence.label[members])
            told += f", {100 * counts.max() / len(members):.0f}% class {counts.argmax()}"
        nearest = members[np.argsort(distance, kind="stable")[:EXEMPLARS]]
        rows.append((str(cluster), told, images.each(evidence.x[nearest])))
    return rows


def _exchange(evidence: Evidence) -> list[tuple[str, list[str]]]:
    """One example of every class, then made every class by adding differences of class means."""
    means = dict(list(attributes.class_means(evidence.codes["mean"], evidence.label).items())[:MOST])
    # The second of its class: the first is where a traversal starts already.
    chosen = np.array([np.flatnonzero(evidence.label == label)[:2][-1] for label in means])
    moved = attributes.exchanged(evidence.codes["mean"][chosen], evidence.label[chosen], means)
    decoded = evidence.decode(moved)
    originals = images.each(evidence.x[chosen])
    return [(original, images.each(row)) for original, row in zip(originals, decoded, strict=True)]
