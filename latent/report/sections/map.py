"""Codes in the plane, to be walked over with the mouse: every point shows its example."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from latent.analysis import projection
from latent.report import images
from latent.report.evidence import Evidence
from latent.report.page import Section, number
from latent.report.plots import rounded

TITLES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP", "codes": "latent plane"}
SEEDS = (0, 1, 2)
"""Of the map that is shown, from principal components, and of two more from random starts."""

LATENT_NEIGHBOURS = 8
MOST_CLASSES = 20
"""More classes than this are coloured by a scale."""


class Shown(NamedTuple):
    """A map and how much of it another seed would show again; None for a method without a seed."""

    map: projection.Map
    stability: float | None


def section(evidence: Evidence) -> Section:
    """Maps of codes; where there is no encoder, of images themselves, data and samples together."""
    coded = evidence.codes is not None
    vectors, shown = vectors_of(evidence), drawn(evidence)
    pictures = evidence.x if coded or evidence.samples is None else np.concatenate([evidence.x, evidence.samples])
    data = {
        "maps": [
            {
                "key": one.map.method,
                "title": TITLES[one.map.method],
                "note": note(one),
                "points": rounded(one.map.points.T, 5),
            }
            for one in shown
        ],
        "colours": _colours(evidence),
        "neighbours": projection.neighbours_of(vectors, LATENT_NEIGHBOURS).tolist(),
        "caption": _captions(evidence),
        "sheet": images.sheet(pictures) if evidence.is_image else None,
        "copies": images.sheet(evidence.copies) if evidence.is_image and evidence.copies is not None else None,
        "space": "in the latent space" if coded else "by pixels",
    }
    values = {"maps": data["maps"], "colours": data["colours"], "pictures": evidence.is_image, "missing": _missing()}
    if coded:
        title = "Map of the codes"
        lead = f"Mean codes of {number(len(vectors))} {evidence.split} examples in the plane. Point at one to see it."
    else:
        title = "Map of data and samples"
        lead = (
            f"{evidence.without('encode')} This is a map of the examples themselves, by their values: "
            f"{number(len(evidence.x))} {evidence.split} examples"
        )
        if evidence.samples is None:
            lead += "."
        else:
            lead += f" and {number(len(evidence.samples))} samples. Where there are no samples, the model makes none."
    return Section(title, lead, values, {}, data)


@functools.lru_cache(maxsize=1)
def vectors_of(evidence: Evidence) -> Float[np.ndarray, "N d"]:
    """What is mapped: mean codes; without an encoder the values of examples and then of samples."""
    if evidence.codes is not None:
        return evidence.codes["mean"]
    parts = [evidence.x] if evidence.samples is None else [evidence.x, evidence.samples]
    return _condensed(np.concatenate([part.reshape(len(part), -1) for part in parts]))


@functools.lru_cache(maxsize=1)
def drawn(evidence: Evidence) -> list[Shown]:
    """The maps of this run, made once."""
    return maps(vectors_of(evidence))


def maps(vectors: Float[np.ndarray, "N d"]) -> list[Shown]:
    """Every map that can be drawn here, t-SNE first; codes of one or two numbers need no projection."""
    if vectors.shape[1] <= 2:
        return [Shown(projection.project(vectors), None)]
    found = []
    for method in ("tsne", "umap", "pca"):
        if not projection.available(method):
            continue
        first = projection.project(vectors, method, SEEDS[0])
        again = SEEDS[1:] if method in projection.RANDOM else ()
        others = [projection.METHODS[method](vectors, seed, "random") for seed in again]
        found.append(Shown(first, projection.stability([first.points, *others]) if others else None))
    return found


def note(shown: Shown) -> str:
    """What is printed on a map: how far it can be trusted."""
    told = f"trustworthiness {shown.map.trustworthiness:.3f}"
    if shown.stability is not None:
        told += f"; {100 * shown.stability:.0f}% of neighbours stay over {len(SEEDS)} seeds"
    return told


def _condensed(flat: Float[np.ndarray, "N d"]) -> Float[np.ndarray, "N _"]:
    """The first 50 principal components: what the others hold is noise to a map, and costs time."""
    from sklearn.decomposition import PCA

    if flat.shape[1] <= 50:
        return flat
    return PCA(min(50, len(flat)), random_state=0, svd_solver="randomized").fit_transform(flat)


def _missing() -> str:
    absent = [TITLES[method] for method in ("umap",) if not projection.available(method)]
    return "" if not absent else "UMAP is an extra: pip install -e '.[maps]'"


def _colours(evidence: Evidence) -> list[dict[str, Any]]:
    """What points can be coloured by: {key, title, kind: group | number, values}."""
    found: list[dict[str, Any]] = []
    pad = 0 if evidence.codes is not None or evidence.samples is None else len(evidence.samples)
    if pad:
        found.append(group("origin", "data or sample", ["data"] * len(evidence.x) + ["sample"] * pad))
    if evidence.label is not None:
        asked = [] if not pad else ([-1] * pad if evidence.sample_classes is None else evidence.sample_classes.tolist())
        labels = [*evidence.label.tolist(), *asked]
        named = [str(label) if label >= 0 else "sample" for label in labels]
        many = len(set(named)) > MOST_CLASSES
        found.append(scale("class", "class", labels) if many else group("class", "class", named, labels=True))
    if evidence.cluster is not None:
        found.append(group("cluster", "k-means cluster", [str(one) for one in evidence.cluster], labels=True))
    if evidence.error is not None:
        found.append(scale("error", "reconstruction error", evidence.error))
    codes = evidence.codes or {}
    if "kl" in codes:
        found.append(scale("kl", "KL, nats", codes["kl"].reshape(len(evidence.x), -1).sum(axis=1)))
    if "probability" in codes:
        found.append(scale("confidence", "confidence", codes["probability"].max(axis=1)))
        right = codes["probability"].argmax(axis=1) == evidence.label
        found.append(group("right", "right or wrong", ["right" if one else "wrong" for one in right]))
    if "factors" in evidence.examples and not pad:
        for place, (name, count) in enumerate(evidence.spec.factors.items()):
            values = evidence.examples["factors"][:, place]
            few = count <= MOST_CLASSES // 2
            found.append(group(name, name, list(map(str, values))) if few else scale(name, name, values))
    return found


def group(key: str, title: str, values: list[str], labels: bool = False) -> dict[str, Any]:
    """A colouring by names, each value the place of its name; `labels` also writes the names on the map."""
    names = sorted(set(values), key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))
    place = {name: number for number, name in enumerate(names)}
    places = [place[value] for value in values]
    return {"key": key, "title": title, "kind": "group", "names": names, "values": places, "labels": labels}


def scale(key: str, title: str, values: Any) -> dict[str, Any]:
    """A colouring by a number."""
    return {"key": key, "title": title, "kind": "number", "values": rounded(values, 3)}


def _captions(evidence: Evidence) -> list[str]:
    """What is said of each point beside its picture."""
    own = [f"{evidence.split} {row}" for row in evidence.rows]
    if evidence.codes is not None or evidence.samples is None:
        return own
    return own + [f"sample {number}" for number in range(len(evidence.samples))]
