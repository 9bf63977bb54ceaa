"""Codes to the plane: principal components, t-SNE or UMAP, with scores that say how far the map can be trusted."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from latent.errors import UserError, unknown_name

NEIGHBOURS = 10


class Map(NamedTuple):
    """Points in the plane, how they were made, and how far they can be believed, over 10 neighbours (Venna & Kaski
    2001), 1 is perfect: `trustworthiness`, whether neighbours in the map are neighbours, and `continuity`, whether
    neighbours are neighbours in the map."""

    points: Float[np.ndarray, "N 2"]
    method: str
    trustworthiness: float
    continuity: float


def _pca(codes: Float[np.ndarray, "N d"], seed: int, start: str) -> Float[np.ndarray, "N 2"]:
    from sklearn.decomposition import PCA

    return PCA(2, svd_solver="full").fit_transform(codes)


def _tsne(codes: Float[np.ndarray, "N d"], seed: int, start: str) -> Float[np.ndarray, "N 2"]:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(30.0, (len(codes) - 1) / 3)
    # One thread: the sums do not depend on the number of cores, and at some thousand points threads that wait for each
    # other cost more than they bring (four times the processor time on a busy machine).
    with threadpool_limits(1):
        return TSNE(2, perplexity=perplexity, init=start, random_state=seed).fit_transform(codes)


def _umap(codes: Float[np.ndarray, "N d"], seed: int, start: str) -> Float[np.ndarray, "N 2"]:
    try:
        import umap
    except ImportError as error:
        raise UserError("projection='umap' needs umap-learn: pip install -e '.[maps]'.") from error
    neighbours = min(15, len(codes) - 1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "n_jobs value")  # a seed means one thread, which is what we ask for
        mapper = umap.UMAP(n_neighbors=neighbours, random_state=seed, init=start, n_jobs=1)
        return np.asarray(mapper.fit_transform(codes))


METHODS = {"pca": _pca, "tsne": _tsne, "umap": _umap}
"""McInnes et al. 2018 (arXiv 1802.03426) is UMAP, an optional extra; van der Maaten & Hinton 2008 t-SNE."""

RANDOM = ("tsne", "umap")
"""Methods whose map depends on where its search starts."""


def available(method: str) -> bool:
    """Whether a method can run here: UMAP is an extra."""
    import importlib.util

    return method != "umap" or importlib.util.find_spec("umap") is not None


def project(codes: Float[np.ndarray, "N d"], method: str = "tsne", seed: int = 0, start: str = "pca") -> Map:
    """Projects codes to two dimensions: they themselves if there are two or fewer, else by one of METHODS (seeded).

    `start` is where t-SNE and UMAP begin: "pca", which keeps large distances (Kobak & Berens 2019), or "random".
    """
    from sklearn.manifold import trustworthiness

    if method not in METHODS:
        raise unknown_name("projection", method, METHODS)
    if codes.shape[1] == 2:
        points, method = codes, "codes"
    elif codes.shape[1] == 1:
        points, method = np.concatenate([codes, np.zeros_like(codes)], axis=1), "codes"
    else:
        points = METHODS[method](codes, seed, start)
    neighbours = min(NEIGHBOURS, len(codes) // 2 - 1)
    trust = float(trustworthiness(codes, points, n_neighbors=neighbours))
    return Map(points, method, trust, continuity(codes, points, neighbours))


def continuity(codes: Float[np.ndarray, "N d"], points: Float[np.ndarray, "N e"], neighbours: int) -> float:
    """How far neighbourhoods of the codes stay together in the map: trustworthiness with the roles changed."""
    from sklearn.manifold import trustworthiness

    return float(trustworthiness(points, codes, n_neighbors=neighbours))


def neighbours_of(points: Float[np.ndarray, "N d"], count: int = NEIGHBOURS) -> Int[np.ndarray, "N k"]:
    """The `count` nearest other points of every point."""
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=min(count, len(points) - 1)).fit(points).kneighbors(return_distance=False)


def overlap(first: Float[np.ndarray, "N _"], second: Float[np.ndarray, "N _"], count: int = NEIGHBOURS) -> float:
    """Mean share of a point's `count` neighbours in one map that are its neighbours in the other; 1: the same map."""
    pairs = zip(neighbours_of(first, count), neighbours_of(second, count), strict=True)
    return float(np.mean([len(np.intersect1d(a, b)) / len(a) for a, b in pairs]))


def stability(maps: Sequence[Float[np.ndarray, "N 2"]], count: int = NEIGHBOURS) -> float:
    """Mean `overlap` over all pairs of maps: how much of a map would be there again with another seed."""
    return float(np.mean([overlap(a, b, count) for a, b in itertools.combinations(maps, 2)]))


TITLES = {"pca": "principal component", "tsne": "t-SNE", "umap": "UMAP", "codes": "latent dimension"}


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
