"""Trains and measures a paper-style experiment and prints its table, ours beside the published numbers.

python -m experiments.reproduce disentanglement --workdir=runs/disentanglement
python -m experiments.reproduce disentanglement --table

The same command again goes on where it was stopped. --config.KEY=VALUE goes to every training, as in
--config.data.dir=DIRECTORY. The folder experiments/papers/NAME says what is claimed and what a budget costs.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from absl import flags

from experiments import command_line
from latent.errors import unknown_name

WORKDIR = flags.DEFINE_string("workdir", None, "Where the runs are kept; default runs/papers/NAME.")
BUDGET = flags.DEFINE_string("budget", "short", "short or full: how long the trainings are.")
SEEDS = flags.DEFINE_integer("seeds", None, "Seeds from 0 on; default: as many as the budget says.")
TABLE = flags.DEFINE_bool("table", False, "Only print the table of the results that the folder of the paper keeps.")
RECORD = flags.DEFINE_bool("record", False, "Keep the results in the folder of the paper.")

PAPERS = Path(__file__).with_name("papers")
BUDGETS = ("short", "full")


def slugs() -> list[str]:
    """The names of the experiments."""
    return sorted(path.parent.name for path in PAPERS.glob("*/sweep.py"))


def load(slug: str, budget: str) -> Any:
    """The `Paper` of a name and budget. Raises UserError for unknown ones."""
    from latent import reproduction

    if slug not in slugs():
        raise unknown_name("experiments.reproduce", slug, slugs())
    if budget not in BUDGETS:
        raise unknown_name("--budget", budget, BUDGETS)
    paper = importlib.import_module(f"experiments.papers.{slug}.sweep").paper(budget)
    reproduction.check(paper)
    return paper


def main() -> int:
    """Returns the exit code: 0, or that of the training that stopped."""
    slug = command_line.words[0]
    paper = load(slug, BUDGET.value)
    from latent import reproduction

    kept = PAPERS / slug / reproduction.FILE
    if TABLE.value:
        print(reproduction.table(paper, reproduction.read(kept)))
        return 0
    if SEEDS.value is not None:
        paper = paper._replace(seeds=tuple(range(SEEDS.value)))
    workdir = Path(WORKDIR.value or Path("runs", "papers", slug))
    changes = [f"--config.{key}={value}" for key, value in command_line.overrides.items()]
    for seed in paper.seeds:
        code = reproduction.train(paper, workdir, seed, changes)
        if code:
            return code
        reproduction.measure(paper, workdir, seed)
    lines = reproduction.read(workdir / reproduction.FILE)
    print(f"\n{paper.title}: {paper.budget}\n\n{reproduction.table(paper, lines)}")
    if RECORD.value:
        reproduction.write(kept, lines)
        print(f"\nkept in {kept}")
    return 0


if __name__ == "__main__":
    command_line.run(main, word="the name of an experiment")
