"""A paper-style experiment as data: what is trained, what is measured, and what stands beside it in its table.

A folder of `experiments/papers/` holds a `sweep.py` with `paper(budget) -> Paper`; `experiments/reproduce.py` drives
it. Trainings and measurements that exist are not made again. What its results say is in latent/tables/papers.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from latent.errors import UserError

FILE = "results.jsonl"
EXAMPLES = "examples.npz"
"""Beside a run's own results: the values of single examples, where a result is a mean over them."""
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
    (`density`). `published` says what the paper has, by column, with its source; `differs` why ours need not be that.
    In a picture rows of one `series` make a line, at the `place` each has on the x axis."""

    name: str
    trainings: tuple[str, ...]
    sampling: Mapping[str, Any] = NOTHING
    density: str = ""
    published: Mapping[str, str] = NOTHING
    differs: str = ""
    series: str = ""
    place: float | None = None


class Paper(NamedTuple):
    """An experiment. `metrics` and their `options` give the results, of which `columns` are shown; the columns
    `tested` are compared with the row `baseline`, paired by seed, and where they are means over examples, by example.
    `correlated` columns are ranked against each other over all runs. `budget` says in words what was run; `step` which
    checkpoint is measured; `axis` what the rows' places are; with `spread` the smallest and largest value of the seeds
    are shown; with `by_data` the data set's name follows that of a result, so that sets have columns of their own."""

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
    correlated: tuple[str, ...] = ()
    step: str = "latest"
    axis: str = ""
    spread: bool = False
    by_data: bool = False


def check(paper: Paper) -> None:
    """Raises UserError where the parts of a paper do not name each other."""
    trainings, rows = {training.name for training in paper.trainings}, {row.name for row in paper.rows}
    missing = {name for row in paper.rows for name in row.trainings} - trainings
    missing |= {training.first_stage for training in paper.trainings if training.first_stage} - trainings
    missing |= ({paper.baseline} if paper.baseline else set()) - rows
    missing |= {*paper.tested, *paper.correlated} - set(paper.columns)
    if missing:
        raise UserError(f"{paper.title}: {', '.join(sorted(missing))} is named but not defined.")


def directory(workdir: Path, training: str, seed: int) -> Path:
    """The work directory of one run."""
    return workdir / f"{training}-{seed}"


def groups(paper: Paper) -> list[tuple[str, ...]]:
    """Names of trainings by what makes one population of their seeds: they differ in hparams alone. Those whose first
    stage is trained here stay by themselves: it is another one for every seed."""
    found: dict[str, list[str]] = {}
    for training in paper.trainings:
        fixed = {key: value for key, value in training.overrides.items() if not key.startswith("hparams.")}
        alike = json.dumps([training.config, fixed, training.first_stage and training.name], sort_keys=True)
        found.setdefault(alike, []).append(training.name)
    return [tuple(names) for names in found.values()]


def train(paper: Paper, names: Sequence[str], workdir: Path, changes: Mapping[str, Any] = NOTHING) -> int:
    """Trains trainings that share a config, every seed of them, in as few programs as they make, or goes on with them.

    `changes` is what is overridden in all of them. Returns the exit code: 0, 1 where a run failed, 143 or 130 when
    stopped.
    """
    from latent.sweeps import axes, plan, progress
    from latent.sweeps.launchers import population
    from latent.sweeps.launchers.options import Options

    chosen = [training for training in paper.trainings if training.name in names]
    planned, members = plan.Plan(chosen[0].config, workdir, dict(changes), axes.parse(), (), None), []
    for training in chosen:
        for seed in paper.seeds:
            point = {**training.overrides, "seed": seed}
            if training.first_stage:
                point["model.first_stage"] = str(directory(workdir, training.first_stage, seed))
            member, _ = plan.make_member(planned, point)
            members.append(member._replace(name=directory(workdir, training.name, seed).name))
    planned = planned._replace(members=tuple(members))
    waiting = [member for member in members if not progress.finished(planned, member)]
    overridden = {key for member in waiting for key in planned.fixed | member.overrides}
    return population.run(planned, population.group(planned, waiting, sorted(overridden)), Options())


def measure(paper: Paper, names: Sequence[str], workdir: Path) -> None:
    """Writes what the rows ask of trainings beside each of their runs; what is there and still holds is left alone.

    Runs that differ in their seed share what is compiled.
    """
    import latent

    for training in (training for training in paper.trainings if training.name in names):
        run = None
        for seed in paper.seeds:
            path = directory(workdir, training.name, seed)
            alone = run is None or training.first_stage  # which is another one for every seed
            run = latent.load(path, paper.step) if alone else run.beside(path, paper.step)
            for row in (row for row in paper.rows if training.name in row.trainings):
                _measure(paper, row, training.name, seed, run)


def _measure(paper: Paper, row: Row, training: str, seed: int, run: Any) -> None:
    path, asked = run.workdir / FILE, _asked(paper, row)
    found, about = read(path), {"row": row.name, "training": training, "seed": seed}
    known = [line for line in found if about.items() <= line.items()]
    if known and all((line["asked"], line["step"]) == (asked, run.step) for line in known):
        return
    drawn = (run.with_density(row.density) if row.density else run).with_sampling(**row.sampling)
    end = f" {run.spec.name}" if paper.by_data else ""
    examples, lines = _examples(run.workdir), []
    for result in drawn.evaluate(paper.metrics, "test", paper.options):
        if result.value is None:
            continue
        lines.append(result._asdict() | {"name": result.name + end})
        if result.name + end in paper.tested and hasattr(result, "examples"):
            examples[f"{row.name}|{result.name + end}"] = result.examples
    np.savez(run.workdir / EXAMPLES, **examples)
    about |= {"step": run.step, "epochs": round(run.experiment.epochs(run.step), 2), "asked": asked}
    write(path, [line for line in found if line not in known] + [about | line for line in lines])


def gather(paper: Paper, workdir: Path) -> list[dict[str, Any]]:
    """The results of all runs, in the order of rows, trainings and seeds, and their differences by example to the row
    `baseline`; they are in WORKDIR/results.jsonl too. Runs that were not measured are left out."""
    lines: list[dict[str, Any]] = []
    for row in paper.rows:
        for training in row.trainings:
            for seed in paper.seeds:
                run = directory(workdir, training, seed)
                lines += [line for line in read(run / FILE) if line["row"] == row.name]
    plain = next((row for row in paper.rows if row.name == paper.baseline), None)
    for row in paper.rows if plain and paper.tested else ():
        for seed in paper.seeds if row is not plain else ():
            lines += _differences(paper, row, plain, workdir, seed)
    write(workdir / FILE, lines)
    return lines


def difference(column: str, baseline: str) -> str:
    """The name of a result that is a mean over differences of single examples."""
    return f"{column} minus {baseline}, by example"


def _differences(paper: Paper, row: Row, plain: Row, workdir: Path, seed: int) -> list[dict[str, Any]]:
    lines = []
    for name, other in zip(row.trainings, plain.trainings, strict=False):
        mine, theirs = (_examples(directory(workdir, training, seed)) for training in (name, other))
        for column in paper.tested:
            pair = mine.get(f"{row.name}|{column}"), theirs.get(f"{plain.name}|{column}")
            if any(values is None for values in pair) or len(pair[0]) != len(pair[1]):
                continue
            values = pair[0] - pair[1]
            error = float(np.std(values, ddof=1) / np.sqrt(len(values)))
            about = {"row": row.name, "training": name, "seed": seed, "N": len(values)}
            found = {"value": float(np.mean(values)), "standard_error": error}
            lines.append(about | {"name": difference(column, plain.name)} | found)
    return lines


def _asked(paper: Paper, row: Row) -> str:
    asked = {"metrics": paper.metrics, "options": {name: dict(value) for name, value in paper.options.items()}}
    return json.dumps(asked | {"sampling": dict(row.sampling), "density": row.density}, sort_keys=True)


def _examples(path: Path) -> dict[str, np.ndarray]:
    if not (path / EXAMPLES).exists():
        return {}
    with np.load(path / EXAMPLES) as known:
        return dict(known)


def read(path: Path) -> list[dict[str, Any]]:
    """Results, one a line; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Writes results whole or not at all."""
    draft = path.with_suffix(".partial")
    draft.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
    draft.replace(path)
