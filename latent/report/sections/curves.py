"""How training went: every logged term, training and evaluation in one picture."""

from __future__ import annotations

from typing import Any

from latent import logs
from latent.report.evidence import Evidence
from latent.report.page import Absent, Section
from latent.report.plots import lines

TITLE = "Training curves"
MACHINE = (
    "gradient_norm", "learning_rate", "steps_per_second", "images_per_second", "input_wait",
    "flops_per_step", "flops_per_second", "mfu",
)  # fmt: skip
"""Terms about the machinery, shown in a fold of their own."""

Series = dict[str, tuple[list[int], list[float]]]


def section(evidence: Evidence) -> Section | Absent:
    """A small plot for every term."""
    charts = collect(logs.read(evidence.run.workdir / logs.FILE))
    if not charts:
        return Absent(TITLE, f"{logs.FILE} of this run holds no numbers.")
    names = {"main": [], "machine": []}
    plots = {}
    for name in sorted(charts, key=lambda name: (rank(name), name)):
        place = f"curve-{len(plots)}"
        plots[place] = lines(charts[name])
        names["machine" if name.rpartition("/")[2] in MACHINE else "main"].append((place, name.replace("_", " ")))
    lead = "Over steps. Training terms are those of the parameters before an update, of one batch."
    return Section(TITLE, lead, names, plots)


def collect(rows: list[dict[str, Any]]) -> dict[str, Series]:
    """{term: {split: (steps, values)}}. With one player its name is left out, so that a term of the loss and the metric
    of the same name meet in one plot. Values that are not numbers (a NaN is logged as a word) are left out, and terms
    with one value, which is no curve."""
    players = {key.partition("/")[0] for row in rows for key in row if "/" in key} - {"perf"}
    charts: dict[str, Series] = {}
    for row in rows:
        for key, value in row.items():
            if key in ("step", "time", "split") or isinstance(value, str | None):
                continue
            name = key.partition("/")[2] if "/" in key and len(players) == 1 else key
            steps, values = charts.setdefault(name, {}).setdefault(row["split"], ([], []))
            steps.append(row["step"])
            values.append(value)
    return {name: series for name, series in charts.items() if any(len(steps) > 1 for steps, _ in series.values())}


def rank(name: str) -> int:
    """What is optimised first, then what it is made of, by how people look."""
    order = ("loss", "elbo", "reconstruction", "kl", "adversarial", "error", "accuracy")
    term = name.rpartition("/")[2]
    return order.index(term) if term in order else len(order)
