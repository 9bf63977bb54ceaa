"""The same sweep for `wandb agent`: a YAML file with the same keys. The agents start the members; every run is written
under --workdir by the same name as by the other launchers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from latent import config
from latent.errors import UserError
from latent.sweeps.axes import Space
from latent.sweeps.launchers.options import Options
from latent.sweeps.plan import Member, Plan, text, write

FILE = "wandb_sweep.yaml"


def launch(plan: Plan, members: Sequence[Member], options: Options) -> int:
    """Writes the YAML file into the sweep's directory (--dry-run: prints it) and says how to go on."""
    content = yaml.safe_dump(describe(plan, options.search), sort_keys=False)
    if options.dry_run:
        print(content, end="")
        return 0
    write(plan)
    path: Path = plan.workdir / FILE
    path.write_text(content)
    print(f"wandb sweep {path}      # prints the sweep's ID for: wandb agent ID")
    return 0


def describe(plan: Plan, search: bool) -> dict[str, Any]:
    """The sweep in W&B's terms: a grid, random draws, or a Bayesian search with early termination.

    Raises UserError for what W&B has no word for: keys that move together, and grids or seeds beside draws.
    """
    axes, base = plan.axes, config.load(plan.config, plan.fixed)
    if axes.zips or (axes.random and (axes.grid or axes.seeds)):
        raise UserError("--launcher=wandb: W&B sweeps are either a grid (with seeds) or --random draws; no --zip.")
    # Agents call this program and not experiments.train: it knows the directory of a member and what all members fix.
    command = ["${env}", "python", "-m", "scripts.sweep", plan.config, f"--workdir={plan.workdir}", "--member"]
    found: dict[str, Any] = {
        "project": base.log.project,
        "name": plan.workdir.absolute().name,
        "program": "scripts/sweep.py",
    }
    found |= {"method": "bayes" if search else "random" if axes.random else "grid"}
    if plan.metric:
        split = "train" if "/" in plan.metric.name else base.eval.split
        goal = "maximize" if plan.metric.mode == "max" else "minimize"
        found["metric"] = {"name": f"{split}/{plan.metric.name}", "goal": goal}
    if search:
        found["early_terminate"] = {"type": "hyperband", "min_iter": 3}
    if axes.random:
        found["run_cap"] = axes.draws
        found["parameters"] = {f"config.{key}": _distribution(space) for key, space in axes.random.items()}
    else:
        columns = {key: [member.overrides[key] for member in plan.members] for key in axes.varied()}
        found["parameters"] = {
            f"config.{key}": {"values": list(dict.fromkeys(map(_plain, values)))} for key, values in columns.items()
        }
    return found | {"command": [*command, "${args}"]}


def _plain(value: Any) -> Any:
    """A value that YAML and the agent's command line carry unchanged; a tuple goes as its text."""
    return value if isinstance(value, int | float | str) else text(value)


def _distribution(space: Space) -> dict[str, Any]:
    if space.kind == "choice":
        return {"values": list(space.choices)}
    if space.kind == "int":
        return {"distribution": "int_uniform", "min": int(space.low), "max": int(space.high)}
    if space.kind == "logint":
        return {"distribution": "q_log_uniform_values", "min": int(space.low), "max": int(space.high), "q": 1}
    name = "log_uniform_values" if space.kind == "log" else "uniform"
    return {"distribution": name, "min": float(space.low), "max": float(space.high)}
