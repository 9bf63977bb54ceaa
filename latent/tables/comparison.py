"""One table: runs grouped by config keys, summarised over seeds, each group held against a baseline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from latent import config
from latent.errors import UserError, unknown_name
from latent.tables import statistics
from latent.tables.measurements import Column, Run

SIGNIFICANT = 0.05
"""Corrected p values below this are called separable."""


class Cell(NamedTuple):
    """A group's numbers for one metric. `verdict` is "baseline", "higher", "lower", "not separable", or why there was
    no test; `values` are those of the seeds."""

    summary: statistics.Summary
    values: dict[int, float]
    comparison: statistics.Comparison | None
    p: float | None
    verdict: str


class Group(NamedTuple):
    """The runs that share the values `key` of the table's keys, and a cell (or None) for each column."""

    key: tuple[Any, ...]
    cells: list[Cell | None]


class Table(NamedTuple):
    """`by`: config keys; `columns`: metrics with unit and protocol; `notes`: what a reader must know."""

    by: tuple[str, ...]
    columns: list[Column]
    groups: list[Group]
    baseline: tuple[Any, ...] | None
    notes: list[str]


def make(runs: Sequence[Run], columns: Sequence[Column], by: Sequence[str], baseline: str | None) -> Table:
    """Groups runs by config keys and compares the groups, paired by seed, with a baseline: the group whose keys are
    written `baseline` ("8", or "8,0.5" for two keys), by default the first.

    Raises UserError where runs of a group differ in more than the seed, or one seed occurs twice.
    """
    for key in by:
        if not any(key in run.config for run in runs):
            raise unknown_name("--by", key, _differing(runs) or set().union(*(run.config for run in runs)))
    groups = group(runs, by)
    chosen = _baseline(list(groups), baseline)
    rows = [Group(key, []) for key in groups]
    notes: list[str] = []
    for column in columns:
        values = {key: _by_seed(members, column) for key, members in groups.items()}
        for row, cell in zip(rows, _cells(values, chosen), strict=True):
            row.cells.append(cell)
        notes += _notes(column, values, runs)
    notes.append(_legend(by, chosen, len(groups)))
    confounded = sorted(_differing(runs) - set(by) - {"seed"})
    if confounded:
        notes.append(f"Groups differ in more than {', '.join(by)}: {', '.join(confounded)}.")
    return Table(tuple(by), list(columns), rows, chosen, [note for note in notes if note])


def group(runs: Sequence[Run], by: Sequence[str]) -> dict[tuple[Any, ...], list[Run]]:
    """{values of the keys: runs}, numbers in order. Raises UserError where a group would mix more than seeds."""
    found: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        found.setdefault(tuple(_hashable(run.config.get(key)) for key in by), []).append(run)
    for key, members in found.items():
        mixed = sorted(_differing(members) - {"seed"})
        told = ", ".join(f"{name}={show(value)}" for name, value in zip(by, key, strict=True))
        if mixed:
            raise UserError(f"runs of {told} differ in {', '.join(mixed)}, not only in the seed; add to --by.")
        seeds = [run.seed for run in members]
        twice = next((run for run in members if seeds.count(run.seed) > 1), None)
        if twice:
            same = ", ".join(str(run.workdir) for run in members if run.seed == twice.seed)
            raise UserError(f"runs of {told} have seed {twice.seed} twice: {same}.")
    return dict(sorted(found.items(), key=lambda item: [_order(value) for value in item[0]]))


def _differing(runs: Sequence[Run]) -> set[str]:
    """Config keys in which runs differ, without those that change nothing that is computed."""
    keys = set().union(*(run.config for run in runs))
    texts = {key: {json.dumps(run.config.get(key)) for run in runs} for key in keys}
    computed = {key for key in keys if not key.startswith(config.MAY_CHANGE) and not key.endswith(".horizon")}
    return {key for key in computed if len(texts[key]) > 1}


def _by_seed(runs: Sequence[Run], column: Column) -> dict[int, float]:
    return {run.seed: column.values[run.workdir].value for run in runs if run.workdir in column.values}


def _cells(values: dict[tuple[Any, ...], dict[int, float]], baseline: tuple[Any, ...]) -> list[Cell | None]:
    """Cells of one column; Holm's correction is over the groups that were tested in it."""
    compared = {
        key: statistics.compare(seeds, values[baseline]) for key, seeds in values.items() if key != baseline and seeds
    }
    tested = statistics.holm([found.p if found else None for found in compared.values()])
    corrected = dict(zip(compared, tested, strict=True))
    cells: list[Cell | None] = []
    for key, seeds in values.items():
        if not seeds:
            cells.append(None)
            continue
        comparison, p = compared.get(key), corrected.get(key)
        verdict = "baseline" if key == baseline else judge(comparison, p)
        cells.append(Cell(statistics.summarise(list(seeds.values())), seeds, comparison, p, verdict))
    return cells


def judge(comparison: statistics.Comparison | None, p: float | None) -> str:
    """What a paired comparison says, its corrected p value given: higher, lower, not separable, or why not tested."""
    if comparison is None:
        return "untested: no common seed"
    if p is None:
        if comparison.n < 2:
            return "untested: one pair"
        return "not separable" if comparison.difference == 0 else "untested: no spread"
    if p >= SIGNIFICANT:
        return "not separable"
    return "higher" if comparison.difference > 0 else "lower"


def _baseline(keys: Sequence[tuple[Any, ...]], asked: str | None) -> tuple[Any, ...]:
    if asked is None:
        return keys[0]
    named = {",".join(map(show, key)): key for key in keys}
    if asked not in named:
        raise unknown_name("--baseline", asked, named)
    return named[asked]


def _legend(by: Sequence[str], baseline: tuple[Any, ...], groups: int) -> str:
    if groups < 2:
        return ""
    told = ", ".join(f"{key}={show(value)}" for key, value in zip(by, baseline, strict=True))
    return f"Paired t test by seed against {told}, Holm-corrected in each column; separable: p < {SIGNIFICANT}."


def _notes(column: Column, values: dict[tuple[Any, ...], dict[int, float]], runs: Sequence[Run]) -> list[str]:
    steps = sorted({found.step for found in column.values.values()})
    protocol = ", ".join(f"{key} {shown(value)}" for key, value in config.flatten(column.protocol).items())
    told = f"steps {steps[0]} to {steps[-1]}" if len(steps) > 1 else f"step {steps[0]}"
    notes = [f"{column.name} [{column.unit}]: {protocol}; {told}."]
    if column.missing:
        notes.append(f"{column.name} is missing in {len(column.missing)} runs, such as {column.missing[0].name}.")
    steps_of = {run.workdir: run.config["train.steps"] for run in runs}
    short = [workdir.name for workdir, found in column.values.items() if found.step < steps_of[workdir]]
    if short:
        notes.append(f"{column.name} is of unfinished runs too: {len(short)}, such as {short[0]}.")
    if any(len(seeds) == 1 for seeds in values.values()):
        notes.append(f"{column.name}: a group with n=1 has no interval; its spread over seeds is unknown.")
    return notes


def shown(value: Any) -> str:
    """A value of a protocol for people: hashes cut to eight letters."""
    text = str(value)
    return text[:8] if len(text) == 64 else text


def show(value: Any) -> str:
    """A config value as one types it: tuples as 8x8."""
    if isinstance(value, tuple):
        return "x".join(map(show, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _order(value: Any) -> tuple[int, Any]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (0, value)
    return (1, show(value))
