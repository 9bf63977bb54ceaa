"""Trains the run that a config describes, or continues it.

python -m experiments.train --config=configs/vae.py:mnist --workdir=runs/vae --config.model.latent_dim=8

On several hosts the same command starts in every process, with a work directory on a file system that they share, and
with --distributed in a job of a cluster, or else with --coordinator, --num_processes and --process_id.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from experiments import command_line
from latent import config
from latent.errors import UserError

CONFIG = flags.DEFINE_string("config", None, "configs/FILE.py:VARIANT; --config.KEY=VALUE changes a key of it.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where the run is written; the same command continues it.")
DRY_RUN = flags.DEFINE_bool("dry-run", False, "Print the resolved config, parameters, FLOPs and memory, then stop.")
DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Train with the other processes of this job: SLURM, a TPU pod, Kubernetes or Open MPI."
)
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0; with the two flags below, processes join without such a job."
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes train together.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is: 0 to num_processes - 1.")
JOIN_SECONDS = flags.DEFINE_float("join_seconds", 300.0, "How long to wait until all processes have joined.")
PROFILE = flags.DEFINE_bool("profile", False, "Write a JAX trace of a few steps to WORKDIR/profile.")
REPLAY = flags.DEFINE_string("replay", None, "Repeat the non-finite step of this bundle and name its first bad part.")


def main() -> int:
    """Returns the exit code."""
    if REPLAY.value is not None:
        return _replay(Path(REPLAY.value))
    if not CONFIG.value:
        raise UserError("--config is required, e.g. --config=configs/vae.py:digits")
    settings = config.load(CONFIG.value, command_line.overrides).to_dict()
    if DRY_RUN.value:
        from latent import dry_run

        print(dry_run.describe(settings, command_line.overrides))
        return 0
    if not WORKDIR.value:
        raise UserError("--workdir is required, e.g. --workdir=runs/vae")
    joining = (COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    if DISTRIBUTED.value or any(value is not None for value in joining):
        from latent import hosts

        hosts.join(*joining, JOIN_SECONDS.value)
    from latent import train

    return train.train(settings, Path(WORKDIR.value), command_line.overrides, PROFILE.value)


def _replay(bundle: Path) -> int:
    from latent import failure

    bad, report = failure.replay(bundle)
    for name, good in report.items():
        print(f"{'finite' if good else 'NOT FINITE':<12}{name}")
    print(f"first bad part: {bad}")
    return 0 if bad == "nothing" else 3


if __name__ == "__main__":
    command_line.run(main)
