"""Codes to the plane: principal components or t-SNE, with a score that says how far the map can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from latent.errors import unknown_name

METHODS = ("pca", "tsne")
NEIGHBOURS = 10


class Map(NamedTuple):
    """Points in the plane, how they were made, and how far they can be believed, over 10 neighbours (Venna & Kaski
    2001), 1 is perfect: `trustworthiness`, whether neighbours in the map are neighbours, and `continuity`, whether
    neighbours are neighbours in the map."""

    points: Float[np.ndarray, "N 2"]
    method: str
    trustworthiness: float
    continuity: float


def project(codes: Float[np.ndarray, "N d"], method: str = "tsne", seed: int = 0) -> Map:
    """Projects codes to two dimensions: they themselves if there are two, else by PCA or t-SNE (seeded)."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE, trustworthiness

    if method not in METHODS:
        raise unknown_name("projection", method, METHODS)
    if codes.shape[1] == 2:
        points, method = codes, "codes"
    elif codes.shape[1] == 1:
        points, method = np.concatenate([codes, np.zeros_like(codes)], axis=1), "codes"
    elif method == "pca":
        points = PCA(2, svd_solver="full").fit_transform(codes)
    else:
        perplexity = min(30.0, (len(codes) - 1) / 3)
        points = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(codes)
    neighbours = min(NEIGHBOURS, len(codes) // 2 - 1)
    trust = float(trustworthiness(codes, points, n_neighbors=neighbours))
    return Map(points, method, trust, continuity(codes, points, neighbours))


def continuity(codes: Float[np.ndarray, "N d"], points: Float[np.ndarray, "N e"], neighbours: int) -> float:
    """How far neighbourhoods of the codes stay together in the map: trustworthiness with the roles changed."""
    from sklearn.manifold import trustworthiness

    return float(trustworthiness(points, codes, n_neighbors=neighbours))


TITLES = {"pca": "principal component", "tsne": "t-SNE", "codes": "latent dimension"}


def draw(chosen: Map, labels: Int[np.ndarray, "N"], path: Path, title: str) -> None:
    """Draws a map coloured by class, as PNG (or whatever matplotlib makes of the file's ending)."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 6.0), layout="constrained")
    classes = np.unique(labels)
    colours = plt.get_cmap("tab10" if len(classes) <= 10 else "turbo", len(classes))
    for place, label in enumerate(classes):
        rows = labels == label
        axes.scatter(*chosen.points[rows].T, s=14, color=colours(place), label=str(label), linewidths=0, alpha=0.8)
        if len(classes) <= 20:
            centre = np.median(chosen.points[rows], axis=0)
            halo = {"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": colours(place), "alpha": 0.85}
            axes.annotate(str(label), centre, ha="center", va="center", fontsize=10, bbox=halo)
    axes.set(title=title, xlabel=f"{TITLES[chosen.method]} 1", ylabel=f"{TITLES[chosen.method]} 2")
    axes.set_aspect("equal", adjustable="datalim")
    scores = f"trustworthiness {chosen.trustworthiness:.3f}, continuity {chosen.continuity:.3f}"
    note = f"{len(labels)} codes; over {NEIGHBOURS} neighbours {scores}"
    axes.text(0.99, 0.01, note, transform=axes.transAxes, ha="right", va="bottom", fontsize=8, color="0.35")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=140)
    plt.close(figure)
