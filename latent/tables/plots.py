"""Pictures of a table: a metric against a swept key, parallel coordinates, rate against distortion. See PLOTS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from latent.errors import UserError
from latent.tables import statistics
from latent.tables.comparison import Table, group, show
from latent.tables.measurements import Run, column

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's, told apart by every eye."""

TICKS = 12
"""Up to so many swept values are all written on the axis."""


def curve(table: Table, runs: Sequence[Run], split: str, path: Path) -> None:
    """The table's first metric against its first key: means, 95% t intervals as a band, seeds as points; a line for
    each value of the other keys."""
    figure, axes = _figure()
    series: dict[tuple[Any, ...], list[tuple[Any, Any]]] = {}
    for row in table.groups:
        if row.cells[0] is not None:
            series.setdefault(row.key[1:], []).append((row.key[0], row.cells[0]))
    places = [key for points in series.values() for key, _ in points]
    numeric = all(isinstance(place, int | float) and not isinstance(place, bool) for place in places)
    words = list(dict.fromkeys(map(show, places)))
    for colour, (rest, points) in zip(_colours(), series.items(), strict=False):
        x = np.array([key if numeric else words.index(show(key)) for key, _ in points], float)
        name = ", ".join(f"{key}={show(value)}" for key, value in zip(table.by[1:], rest, strict=True)) or None
        means = np.array([cell.summary.mean for _, cell in points])
        axes.plot(x, means, color=colour, marker="o", label=name, linestyle="-" if numeric else "none")
        known = [place for place, (_, cell) in enumerate(points) if cell.summary.student]
        low = np.array([points[place][1].summary.student.low for place in known])
        high = np.array([points[place][1].summary.student.high for place in known])
        if numeric:
            axes.fill_between(x[known], low, high, color=colour, alpha=0.2, linewidth=0)
        elif known:
            axes.errorbar(x[known], means[known], [means[known] - low, high - means[known]], color=colour, fmt="none")
        for place, (_, cell) in zip(x, points, strict=True):
            axes.plot([place] * len(cell.values), list(cell.values.values()), ".", color=colour, alpha=0.5, zorder=1)
    if numeric and min(places) > 0 and max(places) >= 10 * min(places):
        axes.set_xscale("log")
    if numeric and len(words) <= TICKS:
        axes.set_xticks(sorted(set(places)), _ticks(places))
        axes.minorticks_off()
    if not numeric:
        axes.set_xticks(range(len(words)), words)
    first = table.columns[0]
    axes.set(xlabel=table.by[0], ylabel=_label(first.name, first.unit))
    axes.set_title(f"{first.name} on {split}; mean over seeds, 95% t interval, points: seeds", fontsize=9)
    if any(rest for rest in series):
        axes.legend(fontsize=8)
    _save(figure, path)


def parallel(table: Table, runs: Sequence[Run], split: str, path: Path) -> None:
    """A line a run through every key of the table to its first metric, coloured by it: what a search has found."""
    import matplotlib

    metric = table.columns[0]
    shown = [run for run in runs if run.workdir in metric.values]
    columns = [[run.config.get(key) for run in shown] for key in table.by]
    columns.append([metric.values[run.workdir].value for run in shown])
    figure, axes = _figure(width=1.6 * len(columns) + 2.0)
    heights = np.array([_heights(values, axes, place) for place, values in enumerate(columns)])
    ranks = np.argsort(np.argsort(heights[-1]))
    colours = matplotlib.colormaps["viridis"](ranks / max(1, len(shown) - 1))
    for run in np.argsort(heights[-1]):
        axes.plot(range(len(columns)), heights[:, run], color=colours[run], alpha=0.7, linewidth=1.2)
    axes.set_xticks(range(len(columns)), [*table.by, _label(metric.name, metric.unit)], fontsize=8)
    axes.set_yticks([])
    axes.set_xlim(-0.4, len(columns) - 0.4)
    axes.set_title(f"{len(shown)} runs on {split}, coloured by their rank in {metric.name}", fontsize=9)
    for place in range(len(columns)):
        axes.axvline(place, color="0.3", linewidth=0.8, zorder=0)
    axes.spines[:].set_visible(False)
    _save(figure, path)


def rate_distortion(table: Table, runs: Sequence[Run], split: str, path: Path) -> None:
    """Rate (KL) against distortion, -(ELBO + KL), both in nats, a point for each group with its 95% t intervals, as
    in Alemi et al. 2018 (arXiv 1711.00464), figure 3."""
    elbo, rate = column(runs, "elbo", split), column(runs, "kl", split)
    if {k: v for k, v in elbo.protocol.items() if k != "samples"} != {
        k: v for k, v in rate.protocol.items() if k != "samples"
    }:
        raise UserError("--kind=rate_distortion: elbo and kl were measured under different protocols.")
    figure, axes = _figure()
    centres = []
    for key, members in group(runs, table.by).items():
        both = [run.workdir for run in members if run.workdir in elbo.values and run.workdir in rate.values]
        if not both:
            continue
        rates = [rate.values[workdir].value for workdir in both]
        distortions = [-elbo.values[workdir].value - rate.values[workdir].value for workdir in both]
        x, y = statistics.summarise(rates), statistics.summarise(distortions)
        centres.append((x.mean, y.mean, ", ".join(map(show, key))))
        axes.plot(rates, distortions, ".", color=COLOURS[0], alpha=0.5)
        if x.student and y.student:
            axes.errorbar(x.mean, y.mean, y.student.high - y.mean, x.student.high - x.mean, color=COLOURS[0])
    centres.sort()
    axes.plot([x for x, _, _ in centres], [y for _, y, _ in centres], "o-", color=COLOURS[0])
    for x, y, name in centres:
        axes.annotate(name, (x, y), xytext=(5, 5), textcoords="offset points", fontsize=8)
    axes.set(xlabel="rate: KL [nats]", ylabel="distortion: -(ELBO + KL) [nats]")
    axes.set_title(f"{split}; labels: {', '.join(table.by)}; 95% t intervals over seeds", fontsize=9)
    _save(figure, path)


PLOTS: dict[str, Callable[[Table, Sequence[Run], str, Path], None]] = {
    "curve": curve,
    "parallel": parallel,
    "rate_distortion": rate_distortion,
}


def _heights(values: Sequence[Any], axes: Any, place: int) -> np.ndarray:
    """Values on an axis from 0 to 1, logarithmic where they span more than a factor of 30; draws its labels."""
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if not numeric:
        names = sorted({show(tuple(value) if isinstance(value, list) else value) for value in values})
        at = {name: (rank + 0.5) / len(names) for rank, name in enumerate(names)}
        for name, height in at.items():
            axes.text(place + 0.03, height, name, fontsize=7)
        return np.array([at[show(tuple(value) if isinstance(value, list) else value)] for value in values])
    numbers = np.array(values, float)
    scaled = np.log(numbers) if numbers.min() > 0 and numbers.max() > 30 * numbers.min() else numbers
    span = np.ptp(scaled)
    heights = (scaled - scaled.min()) / span if span else np.full(len(scaled), 0.5)
    for number, height in {(numbers.min(), heights.min()), (numbers.max(), heights.max())}:
        axes.text(place + 0.03, height, f"{number:.4g}", fontsize=7)
    return heights


def _ticks(values: Sequence[float | int]) -> list[str]:
    """Different numbers as words, ascending: the ticks of a swept key."""
    return [show(value) for value in sorted(set(values))]


def _label(name: str, unit: str) -> str:
    return f"{name} [{unit}]" if unit else name


def _colours() -> list[str]:
    return list(COLOURS) * 10


def _figure(width: float = 6.4) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(width, 4.4), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot as plt

    figure.savefig(path, dpi=140)
    plt.close(figure)
