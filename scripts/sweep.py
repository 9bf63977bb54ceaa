"""Plans a sweep over any config keys, and runs what of it is not finished yet. The same command again goes on.

python -m scripts.sweep configs/vae.py:mnist --grid model.latent_dim=2,8,32 --seeds 3 --workdir=runs/sweep
python -m scripts.sweep configs/vae.py:digits --zip model.latent_dim=2,8 "model.net.hidden=(64,),(128,64)" \\
    --random hparams.autoencoder.beta=log:0.1..10 --draws 8 --workdir=runs/draws --launcher=print
python -m scripts.sweep configs/vae.py:digits --random hparams.autoencoder.learning_rate=log:1e-4..1e-2 \\
    model.latent_dim=int:2..16 --draws 40 --search=elbo --workdir=runs/search --jobs 2
python -m scripts.sweep configs/vae.py:digits --seeds 16 --workdir=runs/pop --launcher=population

A value with a comma goes in brackets: "model.net.hidden=(200, 200),(400,)". Random kinds: uniform, log, int and logint
with KIND:LOW..HIGH, or a list of choices. --config.KEY=VALUE is set for every member.
Exit codes: 0 every member is finished (or submitted, or printed); 1 some failed; 2 you must change something, and
nothing was written; 143 or 130 stopped, members have saved.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from experiments.command_line import exit_with, set_up_jax, split_overrides
from latent import config
from latent.errors import UserError
from scripts.arguments import Parser

CLUSTER = """of --launcher=slurm, as submitit names them: timeout_min=120 slurm_partition=gpu gpus_per_node=1;
cluster=local tries it out on this machine"""


def main() -> int:
    """Returns the exit code."""
    words, fixed = split_overrides(sys.argv[1:])
    arguments = _parser().parse_args(words)
    if arguments.member:
        return _become_member(arguments, fixed)
    from latent.sweeps import axes, plan, search

    asked = axes.parse(
        [word for words in arguments.grid for word in words],
        arguments.zip,
        [word for words in arguments.random for word in words],
        arguments.draws,
        arguments.draw_seed,
        arguments.seeds,
    )
    launch, options = _launcher(arguments)
    _set_up(launch)
    if arguments.search:
        search.require(asked)
        if arguments.launcher not in ("local", "wandb"):
            raise UserError(f"--search runs with --launcher=local or wandb, not {arguments.launcher}: it must listen.")
    planned = plan.make(arguments.config, arguments.workdir, fixed, asked, arguments.search, arguments.mode)
    plan.check_directory(planned)
    if arguments.search and arguments.launcher == "local":
        return _search(planned, options)
    return _run(planned, launch, options)


def _set_up(launch: Any) -> None:
    import jax

    set_up_jax()
    launcher = sys.modules[launch.__module__]
    if hasattr(launcher, "set_up"):
        launcher.set_up()
    else:
        jax.config.update("jax_platforms", "cpu")  # planning computes nothing; members need the accelerator's memory


def _run(planned: Any, launch: Any, options: Any) -> int:
    from latent.sweeps import plan, progress

    states = {member.name: progress.state(planned, member) for member in planned.members}
    count = {state: list(states.values()).count(state) for state in ("finished", "running", "started", "missing")}
    told = ", ".join(f"{number} {state}" for state, number in count.items() if number)
    print(f"{planned.workdir}: {len(states)} members ({told})", file=sys.stderr)
    open_members = [member for member in planned.members if states[member.name] in ("started", "missing")]
    if options.dry_run:
        print(plan.describe(planned))
    return launch(planned, open_members, options)


def _search(planned: Any, options: Any) -> int:
    from latent.sweeps import plan, search

    if options.dry_run:
        print(plan.describe(planned._replace(members=())))
        return 0
    plan.write(planned._replace(members=()))
    return search.run(planned, options)


def _launcher(arguments: argparse.Namespace) -> tuple[Any, Any]:
    from latent.sweeps.launchers.options import Options

    launch = config.select("latent.sweeps.launchers", arguments.launcher, "launch", "--launcher")
    cluster: dict[str, Any] = {}
    for word in (word for words in arguments.cluster for word in words):
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"--cluster {word!r} is not of the form PARAMETER=VALUE.")
        cluster[key] = int(value) if value.isdigit() else value
    if cluster and arguments.launcher != "slurm":
        raise UserError(f"--cluster is for --launcher=slurm, not {arguments.launcher}.")
    if arguments.jobs < 0:
        raise UserError(f"--jobs={arguments.jobs} must not be negative.")
    return launch, Options(arguments.jobs, cluster, arguments.dry_run, bool(arguments.search))


def _become_member(arguments: argparse.Namespace, overrides: dict[str, str]) -> int:
    """Becomes the training of one member, whose overrides are those of the command line: how W&B's agents start it."""
    from latent.sweeps import axes, plan

    known = plan.read(arguments.workdir)
    if known is None:
        raise UserError(f"--workdir={arguments.workdir} holds no {plan.FILE}; --launcher=wandb writes it.")
    nothing = axes.parse()
    sweep = plan.Plan(arguments.config, arguments.workdir, known["fixed"], nothing, (), None)
    command = sweep.command(plan.make_member(sweep, overrides)[0])
    os.execv(command[0], command)


def _parser() -> Parser:
    parser = Parser(__doc__)
    several: dict[str, Any] = {"nargs": "+", "action": "append", "default": []}
    parser.add_argument("config", help="configs/FILE.py:VARIANT")
    parser.add_argument("--workdir", type=Path, required=True, help="members are written to WORKDIR/NAME")
    parser.add_argument("--grid", metavar="KEY=VALUES", help="all combinations", **several)
    parser.add_argument("--zip", metavar="KEY=VALUES", help="keys of one --zip move together", **several)
    parser.add_argument("--random", metavar="KEY=SPACE", help="e.g. hparams.autoencoder.beta=log:0.1..10", **several)
    parser.add_argument("--draws", type=int, default=0, help="how many draws of --random, or trials of --search")
    parser.add_argument("--draw-seed", type=int, default=0, help="of the draws; draw i never depends on --draws")
    parser.add_argument("--seeds", type=int, default=0, help="seeds of every point, from the config's own upwards")
    parser.add_argument("--search", metavar="METRIC", default="", help="optuna's TPE and pruning on this value")
    parser.add_argument("--mode", default="", help="of --search: max or min")
    parser.add_argument("--launcher", default="local", help="a module of latent/sweeps/launchers")
    parser.add_argument(
        "--jobs",
        type=int,
        default=0,
        help="members at a time; default: one a GPU or two cores, a population: what fits",
    )
    parser.add_argument("--cluster", metavar="PARAMETER=VALUE", help=CLUSTER, **several)
    parser.add_argument("--dry-run", action="store_true", help="print the plan, write nothing")
    parser.add_argument("--member", action="store_true", help="train the one member of the --config.KEY=VALUE given")
    return parser


if __name__ == "__main__":
    exit_with(main)
