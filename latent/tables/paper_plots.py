"""The picture of a paper-style experiment: a panel for every column."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from latent.reproduction import Paper
from latent.tables import statistics
from latent.tables.papers import Lines, values
from latent.tables.plots import COLOURS

PER_ROW = 3


def draw(paper: Paper, lines: Lines, path: Path) -> None:
    """Means over seeds with 95% t intervals, seeds as small marks: curves over the rows' places where they have any,
    else a line of the panel for every row."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    columns = [column for column in paper.columns if any(line["name"] == column for line in lines)]
    across, down = min(PER_ROW, len(columns)), math.ceil(len(columns) / PER_ROW)
    placed = any(row.place is not None for row in paper.rows)
    height = 3.4 if placed else 1.2 + 0.3 * len(paper.rows)
    figure, panels = plt.subplots(
        down, across, figsize=(4.2 * across, height * down), layout="constrained", squeeze=False
    )
    for panel, column in zip(panels.flat, columns, strict=False):
        _curves(panel, paper, lines, column) if placed else _stripes(panel, paper, lines, column)
        panel.set_title(column, fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels.flat[len(columns) :]:
        panel.set_visible(False)
    figure.suptitle(f"{paper.title}; mean over seeds, 95% t interval, small marks: seeds", fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _curves(panel: Any, paper: Paper, lines: Lines, column: str) -> None:
    # A series without this column keeps its colour, so that a colour is the same model in every panel.
    series: dict[str, list[tuple[float, list[float]]]] = {row.series: [] for row in paper.rows}
    for row in paper.rows:
        found = list(values(lines, row.name, column).values())
        if found:
            series[row.series].append((row.place, found))
    for colour, (name, points) in zip(COLOURS, series.items(), strict=False):
        if not points:
            continue
        places = [place for place, _ in points]
        means, low, high = np.array([_summary(found) for _, found in points]).T
        panel.plot(places, means, "o-", color=colour, label=name, markersize=4)
        panel.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
        for place, found in points:
            panel.plot([place] * len(found), found, ".", color=colour, alpha=0.4, markersize=4)
    places = sorted({row.place for row in paper.rows if row.place is not None})
    panel.set_xscale("log", base=2)
    panel.set_xticks(places, [f"{place:g}" for place in places])
    panel.set_xlabel(paper.axis, fontsize=8)
    if any(series.values()):
        panel.legend(fontsize=7)


def _stripes(panel: Any, paper: Paper, lines: Lines, column: str) -> None:
    for height, row in enumerate(paper.rows):
        found = list(values(lines, row.name, column).values())
        if found:
            mean, low, high = _summary(found)
            panel.errorbar(mean, height, xerr=[[mean - low], [high - mean]], fmt="o", color=COLOURS[0], markersize=4)
            panel.plot(found, [height] * len(found), "|", color=COLOURS[1])
    panel.set_yticks(range(len(paper.rows)), [row.name for row in paper.rows], fontsize=7)
    panel.set_ylim(len(paper.rows) - 0.5, -0.5)


def _summary(found: list[float]) -> tuple[float, float, float]:
    summary = statistics.summarise(found)
    interval = summary.student or statistics.Interval(summary.mean, summary.mean)
    return summary.mean, interval.low, interval.high
