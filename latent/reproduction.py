"""A paper-style experiment as data: what is trained, what is measured, and what stands beside it in its table.

A folder of `experiments/papers/` holds a `sweep.py` with `paper(budget) -> Paper`; `experiments/reproduce.py` drives
it. Trainings and measurements that exist are not made again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from latent.errors import UserError
from latent.tables import comparison, statistics

FILE = "results.jsonl"
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Training(NamedTuple):
    """One config with what it overrides; `first_stage` names the training whose run of the same seed it starts from."""

    name: str
    config: str
    overrides: Mapping[str, Any] = NOTHING
    first_stage: str = ""


class Row(NamedTuple):
    """A line of the table: the runs of which trainings (several where columns are of different data sets), and how they
    are asked for samples where that is measured: family options (`sampling`) or a density fitted to the codes
    (`density`). `published` says what the paper has, by column, with its source."""

    name: str
    trainings: tuple[str, ...]
    sampling: Mapping[str, Any] = NOTHING
    density: str = ""
    published: Mapping[str, str] = NOTHING


class Paper(NamedTuple):
    """An experiment. `metrics` and their `options` give the results, of which `columns` are shown; the columns
    `tested` are compared with the row `baseline`, paired by seed. `budget` says in words what was run."""

    title: str
    budget: str
    trainings: tuple[Training, ...]
    rows: tuple[Row, ...]
    metrics: tuple[str, ...]
    columns: tuple[str, ...]
    baseline: str
    tested: tuple[str, ...]
    seeds: tuple[int, ...]
    options: Mapping[str, Mapping[str, Any]] = NOTHING


def check(paper: Paper) -> None:
    """Raises UserError where the parts of a paper do not name each other."""
    trainings, rows = {training.name for training in paper.trainings}, {row.name for row in paper.rows}
    missing = {name for row in paper.rows for name in row.trainings} - trainings
    missing |= {training.first_stage for training in paper.trainings if training.first_stage} - trainings
    missing |= ({paper.baseline} if paper.baseline else set()) - rows
    missing |= set(paper.tested) - set(paper.columns)
    if missing:
        raise UserError(f"{paper.title}: {', '.join(sorted(missing))} is named but not defined.")


def directory(workdir: Path, training: str, seed: int) -> Path:
    """The work directory of one run."""
    return workdir / f"{training}-{seed}"


def command(paper: Paper, training: Training, workdir: Path, seed: int, changes: Sequence[str] = ()) -> list[str]:
    """The command that trains one run, or goes on with it."""
    words = [sys.executable, "-m", "experiments.train", f"--config={training.config}"]
    words += [f"--workdir={directory(workdir, training.name, seed)}", f"--config.seed={seed}"]
    words += [f"--config.{key}={value}" for key, value in training.overrides.items()]
    if training.first_stage:
        words.append(f"--config.model.first_stage={directory(workdir, training.first_stage, seed)}")
    return [*words, *changes]


def train(paper: Paper, workdir: Path, seed: int, changes: Sequence[str] = ()) -> int:
    """Trains every run of a seed, in order. Returns the first exit code that is not 0."""
    for training in paper.trainings:
        code = subprocess.run(command(paper, training, workdir, seed, changes), check=False).returncode
        if code:
            return code
    return 0


def measure(paper: Paper, workdir: Path, seed: int) -> None:
    """Adds the results of a seed to WORKDIR/results.jsonl, those that are there and still hold left alone."""
    import latent

    found = read(workdir / FILE)
    for row, training in _measured(paper):
        asked, about = _asked(paper, row), {"row": row.name, "training": training, "seed": seed}
        run = latent.load(directory(workdir, training, seed))
        known = [line for line in found if about.items() <= line.items()]
        if known and all((line["asked"], line["step"]) == (asked, run.step) for line in known):
            continue
        drawn = (run.with_density(row.density) if row.density else run).with_sampling(**row.sampling)
        results = drawn.evaluate(paper.metrics, "test", paper.options)
        about |= {"step": run.step, "epochs": round(run.experiment.epochs(run.step), 2), "asked": asked}
        found = [line for line in found if line not in known]
        found += [about | result._asdict() for result in results if result.value is not None]
        write(workdir / FILE, found)


def _measured(paper: Paper) -> list[tuple[Row, str]]:
    return [(row, training) for row in paper.rows for training in row.trainings]


def _asked(paper: Paper, row: Row) -> str:
    asked = {"metrics": paper.metrics, "options": {name: dict(value) for name, value in paper.options.items()}}
    return json.dumps(asked | {"sampling": dict(row.sampling), "density": row.density}, sort_keys=True)


def read(path: Path) -> list[dict[str, Any]]:
    """Results, one a line; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Writes results whole or not at all."""
    draft = path.with_suffix(".partial")
    draft.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
    draft.replace(path)


def table(paper: Paper, lines: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: means over seeds with 95% t intervals, published numbers where there are any, then every row's
    difference to the baseline. Raises UserError where a column was measured by more than one protocol."""
    require_one_protocol(paper, lines)
    return "\n".join([*_means(paper, lines), *_differences(paper, lines)])


def require_one_protocol(paper: Paper, lines: Sequence[Mapping[str, Any]]) -> None:
    """Numbers of one column must have been measured alike (law 8), but for how the samples were drawn, which is what
    rows may differ in."""
    for column in paper.columns:
        found = [dict(line["protocol"]) for line in lines if line["name"] == column]
        for protocol in found:
            for key in ("sampling", "weights"):
                protocol.pop(key, None)
        if len({json.dumps(protocol, sort_keys=True) for protocol in found}) > 1:
            raise UserError(f"{paper.title}: {column} was measured by several protocols; measure all rows alike.")


def _values(lines: Sequence[Mapping[str, Any]], row: str, column: str) -> dict[int, float]:
    return {line["seed"]: line["value"] for line in lines if (line["row"], line["name"]) == (row, column)}


def _means(paper: Paper, lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    published = any(row.published for row in paper.rows)
    header = ["", "n", *paper.columns, *(["published"] if published else [])]
    yield f"| {' | '.join(header)} |"
    yield "|---" * len(header) + "|"
    for row in paper.rows:
        found = {column: _values(lines, row.name, column) for column in paper.columns}
        cells = [_cell(values) for values in found.values()]
        seeds = max(map(len, found.values()))
        if published:
            cells.append("; ".join(f"{column} {text}" for column, text in row.published.items()) or "-")
        yield f"| {row.name} | {seeds} | {' | '.join(cells)} |"


def _cell(values: Mapping[int, float]) -> str:
    if not values:
        return "-"
    summary = statistics.summarise(list(values.values()))
    half = "" if summary.student is None else f" +- {summary.student.high - summary.mean:.2g}"
    return f"{summary.mean:.4g}{half}"


def _differences(paper: Paper, lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    others = [row.name for row in paper.rows if row.name != paper.baseline]
    if not paper.tested or not others:
        return
    told = {column: _verdicts(paper.baseline, others, lines, column) for column in paper.tested}
    yield ""
    yield f"| minus {paper.baseline}, paired by seed | {' | '.join(paper.tested)} |"
    yield "|---" * (len(paper.tested) + 1) + "|"
    for row in others:
        yield f"| {row} | {' | '.join(told[column][row] for column in paper.tested)} |"


def _verdicts(baseline: str, rows: Sequence[str], lines: Sequence[Mapping[str, Any]], column: str) -> dict[str, str]:
    """What each row's difference to the baseline amounts to, Holm-corrected for the number of rows."""
    plain = _values(lines, baseline, column)
    compared = {row: statistics.compare(_values(lines, row, column), plain) for row in rows}
    corrected = statistics.holm([found.p if found else None for found in compared.values()])
    told = {}
    for (row, found), p in zip(compared.items(), corrected, strict=True):
        verdict = comparison.judge(found, p)
        told[row] = verdict
        if found is not None:
            between = "" if found.student is None else f" [{found.student.low:+.3g}, {found.student.high:+.3g}]"
            told[row] = f"{found.difference:+.3g}{between} {verdict}"
    return told
