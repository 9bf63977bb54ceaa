"""Figures for papers, beside the page: each as PNG and PDF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from latent import logs, pictures
from latent.analysis import projection, traversal
from latent.report.evidence import Evidence
from latent.report.sections import curves, map, statistics, traversals

ENDINGS = ("png", "pdf")
ROWS, COLUMNS = 8, 8


def draw(evidence: Evidence, folder: Path) -> None:
    """Writes the figures of the sections that are shown, as far as this run can have them, into an existing folder."""
    for name, (section, figure) in FIGURES.items():
        if section in evidence.sections:
            figure(evidence, folder / name)


def _curves(evidence: Evidence, path: Path) -> None:
    charts = curves.collect(logs.read(evidence.run.workdir / logs.FILE))
    names = sorted(
        (name for name in charts if name.rpartition("/")[2] not in curves.MACHINE), key=lambda n: (curves.rank(n), n)
    )
    if not names:
        return
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, axes = _plot(rows, columns, (2.6 * columns, 2.0 * rows))
    for place, name in zip(axes.ravel(), names, strict=False):
        for split, (steps, values) in charts[name].items():
            place.plot(steps, values, label=split, marker="." if len(steps) < 12 else None, linewidth=1)
        place.set_title(name.replace("_", " "), fontsize=8)
        place.tick_params(labelsize=7)
    for place in axes.ravel()[len(names) :]:
        place.set_visible(False)
    axes[0, 0].legend(fontsize=7)
    _save(figure, path)


def _reconstructions(evidence: Evidence, path: Path) -> None:
    if evidence.copies is None or not evidence.is_image:
        return
    count = min(len(evidence.x), ROWS // 2 * COLUMNS)
    pairs = [
        evidence.x[:count].reshape(-1, 1, *evidence.spec.shape),
        evidence.copies[:count].reshape(-1, 1, *evidence.spec.shape),
    ]
    rows = [
        row
        for start in range(0, count - count % COLUMNS, COLUMNS)
        for row in (pairs[0][start : start + COLUMNS, 0], pairs[1][start : start + COLUMNS, 0])
    ]
    _sheet(evidence, np.concatenate(rows), COLUMNS, path)


def _samples(evidence: Evidence, path: Path) -> None:
    if evidence.samples is None or not evidence.is_image:
        return
    classes = evidence.model.classes
    if not classes:
        return _sheet(evidence, evidence.samples[: ROWS * COLUMNS], COLUMNS, path)
    by_class = [evidence.samples[evidence.sample_classes == label][:COLUMNS] for label in range(min(classes, 20))]
    return _sheet(evidence, np.concatenate(by_class), COLUMNS, path)


def _traversals(evidence: Evidence, path: Path) -> None:
    if evidence.space is None or not evidence.is_image:
        return
    (_, _, found), (_, origin, _) = traversals.chosen(evidence)[0], traversals.origins(evidence)[0]
    values = np.linspace(-traversals.EXTENT, traversals.EXTENT, traversals.STEPS)
    walks = np.stack([traversal.walk(origin, along, values) for along, _ in found])
    decoded = evidence.decode(walks)
    _sheet(evidence, decoded.reshape(-1, *decoded.shape[2:]), traversals.STEPS, path)


def _maps(evidence: Evidence, path: Path) -> None:
    if evidence.codes is None:
        return
    label = np.zeros(len(evidence.x), np.int32) if evidence.label is None else evidence.label
    title = f"Codes of {evidence.config['data']['name']} {evidence.split}"
    for shown in map.drawn(evidence):
        for ending in ENDINGS:
            name = f"{path.name}_{shown.map.method}.{ending}"
            projection.draw(shown.map, label, path.with_name(name), title)


def _kl(evidence: Evidence, path: Path) -> None:
    if evidence.codes is None:
        return
    found = statistics.measured(evidence)
    order = found.order[: statistics.MOST]
    values, word = (found.variance_of_means, "variance of E[z | x]") if found.kl is None else (found.kl, "KL, nats")
    figure, axes = _plot(1, 1, (5.2, 2.6))
    axes[0, 0].bar(range(len(order)), values[order], color="#4269d0")
    axes[0, 0].set(xlabel="latent dimension, sorted", ylabel=word)
    _save(figure, path)


FIGURES: dict[str, tuple[str, Callable[[Evidence, Path], None]]] = {
    "curves": ("curves", _curves),
    "reconstructions": ("reconstructions", _reconstructions),
    "samples": ("samples", _samples),
    "traversals": ("traversals", _traversals),
    "map": ("map", _maps),
    "dimensions": ("statistics", _kl),
}
"""File name without ending -> (the section that shows the same, what draws it)."""


def _sheet(evidence: Evidence, images: np.ndarray, columns: int, path: Path) -> None:
    """A grid of images, pixel by pixel."""
    from PIL import Image

    picture = Image.fromarray(pictures.grid(images, columns, pictures.magnification(evidence.spec)))
    for ending in ENDINGS:
        picture.save(path.with_suffix(f".{ending}"))


def _plot(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for place in axes.ravel():
        place.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot as plt

    for ending in ENDINGS:
        figure.savefig(path.with_suffix(f".{ending}"), dpi=160)
    plt.close(figure)
