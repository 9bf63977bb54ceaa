"""Trains and measures a paper-style experiment and prints its table, ours beside the published numbers.

python -m experiments.reproduce disentanglement --workdir=runs/disentanglement
python -m experiments.reproduce disentanglement --table

The same command again goes on where it was stopped. --config.KEY=VALUE goes to every training, as in
--config.data.dir=DIRECTORY. Runs that differ in seed and hparams alone train as one program; the others, and their
measurements, in processes beside each other, as many as --jobs says. What these print is in WORKDIR/output. The folder
experiments/papers/NAME says what is claimed and what a budget costs.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from absl import flags

from experiments import command_line
from latent.errors import unknown_name

WORKDIR = flags.DEFINE_string("workdir", None, "Where the runs are kept; default runs/papers/NAME.")
BUDGET = flags.DEFINE_string("budget", "short", "short or full: how long the trainings are.")
SEEDS = flags.DEFINE_integer("seeds", None, "Seeds from 0 on; default: as many as the budget says.")
JOBS = flags.DEFINE_integer("jobs", 0, "Processes at a time; default: one for two cores. They share the GPUs.")
TABLE = flags.DEFINE_bool("table", False, "Only print the table of the results that the folder of the paper keeps.")
RECORD = flags.DEFINE_bool("record", False, "Keep results, table and plot in the folder of the paper.")
TRAIN = flags.DEFINE_list("train", [], "Only train these, in this process: what the command starts by itself.")
MEASURE = flags.DEFINE_list("measure", [], "Only measure these, each TRAINING:SEED: likewise.")

PAPERS = Path(__file__).with_name("papers")
BUDGETS = ("short", "full")
SMOKE = "smoke"
"""A budget of a few steps that shows nothing but that everything runs."""


def slugs() -> list[str]:
    """The names of the experiments."""
    return sorted(path.parent.name for path in PAPERS.glob("*/sweep.py"))


def load(slug: str, budget: str) -> Any:
    """The `Paper` of a name and budget. Raises UserError for unknown ones."""
    from latent import reproduction

    if slug not in slugs():
        raise unknown_name("experiments.reproduce", slug, slugs())
    if budget not in (*BUDGETS, SMOKE):
        raise unknown_name("--budget", budget, BUDGETS)
    paper = importlib.import_module(f"experiments.papers.{slug}.sweep").paper(budget)
    reproduction.check(paper)
    return paper


def tasks(slug: str, paper: Any, workdir: Path, places: int, words: list[str]) -> list[Any]:
    """What there is to do: a training for every group, which measures its runs too; where that would leave places
    empty, a measurement of every run by itself after it. `words` are added to every command."""
    from latent import reproduction
    from latent.tasks import Task

    groups = reproduction.groups(paper)
    of = {name: "+".join(group) for group in groups for name in group}
    common = [sys.executable, "-m", "experiments.reproduce", slug, f"--workdir={workdir}", *words]
    output = workdir / "output"
    asked = {name for row in paper.rows for name in row.trainings}
    apart = len(groups) < places
    trainings, measurements = [], []
    for group in groups:
        label = of[group[0]]
        stages = {training.first_stage for training in paper.trainings if training.name in group} - {""}
        after = tuple(sorted({f"train {of[stage]}" for stage in stages}))
        parts = [f"{name}:{seed}" for name in group if name in asked for seed in paper.seeds]
        command = [*common, f"--train={','.join(group)}"]
        if not apart:
            command.append(f"--measure={','.join(parts)}")
        trainings.append(Task(f"train {label}", command, output / f"train_{_file(label)}.log", after))
        for part in parts if apart else ():
            path = output / f"measure_{_file(part)}.log"
            measurements.append(Task(f"measure {part}", [*common, f"--measure={part}"], path, (f"train {label}",)))
    return trainings + measurements


def _file(label: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in label)[:100]


def _part(paper: Any, workdir: Path) -> int:
    """What a process does that this command has started: train, measure, or both."""
    from latent import reproduction
    from latent.sweeps.launchers import population

    if TRAIN.value:
        population.set_up()
        code = reproduction.train(paper, TRAIN.value, workdir, command_line.overrides)
        if code:
            return code
    asked: dict[str, list[int]] = {}
    for word in MEASURE.value:
        name, _, seed = word.rpartition(":")
        asked.setdefault(name, []).append(int(seed))
    for name, seeds in asked.items():
        reproduction.measure(paper._replace(seeds=tuple(seeds)), [name], workdir)
    return 0


def _record(slug: str, paper: Any, lines: list[Any]) -> None:
    from latent import reproduction
    from latent.tables import paper_plots, papers

    folder = PAPERS / slug
    page = papers.page((folder / "README.md").read_text(), paper, lines)
    paper_plots.draw(paper, lines, folder / papers.PICTURE)
    reproduction.write(folder / reproduction.FILE, lines)
    (folder / "README.md").write_text(page)
    print(f"\nkept in {folder}")


def main() -> int:
    """Returns the exit code: 0, or that of what failed or was stopped."""
    slug = command_line.words[0]
    paper = load(slug, BUDGET.value)
    from latent import reproduction
    from latent import tasks as processes
    from latent.sweeps.launchers import local
    from latent.tables import papers

    if TABLE.value:
        print(papers.table(paper, reproduction.read(PAPERS / slug / reproduction.FILE)))
        return 0
    if SEEDS.value is not None:
        paper = paper._replace(seeds=tuple(range(SEEDS.value)))
    workdir = Path(WORKDIR.value or Path("runs", "papers", slug))
    if TRAIN.value or MEASURE.value:
        return _part(paper, workdir)
    words = [f"--budget={BUDGET.value}", f"--seeds={len(paper.seeds)}"]
    words += [f"--config.{key}={value}" for key, value in command_line.overrides.items()]
    cores = local.cores()
    places = local.shares(JOBS.value or max(1, len(cores) // 2), cores, local.gpus())
    (workdir / "output").mkdir(parents=True, exist_ok=True)
    code = processes.run(tasks(slug, paper, workdir, len(places), words), places)
    lines = reproduction.gather(paper, workdir)
    print(f"\n{paper.title}: {paper.budget}\n\n{papers.table(paper, lines)}")
    if RECORD.value and not code:
        _record(slug, paper, lines)
    return code


if __name__ == "__main__":
    command_line.run(main, word="the name of an experiment")
