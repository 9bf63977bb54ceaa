"""Members as batch jobs through submitit: a SLURM array, or submitit's local executor (cluster=local) to try it out.

A job that is preempted, or reaches its time limit, lets its member save and goes back into the queue.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latent.errors import UserError
from latent.sweeps.launchers.options import Options
from latent.sweeps.plan import Member, Plan, write

FOLDER = "slurm"
"""In the sweep's directory: the scripts, what jobs printed, and `jobs.json`, the job of every member."""

GRACE = 60.0
"""Seconds that a member has to save in; submitit sends its signal 90 s before the end."""


class Train:
    """What a job runs: one member, in a process of its own that hears only what this one passes on."""

    def __init__(self, command: Sequence[str]):
        self._command, self._process = list(command), None

    def __call__(self) -> str:
        self._process = subprocess.Popen(self._command, start_new_session=True)
        # Not `wait`: it holds a lock that the signal handler, `checkpoint`, would wait for in vain.
        while self._process.poll() is None:
            time.sleep(0.2)
        if self._process.returncode:
            raise RuntimeError(f"exit {self._process.returncode}")
        return "finished"

    def checkpoint(self) -> Any:
        """submitit's hook before a job is requeued: the member saves and ends, the same is submitted again."""
        import submitit

        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            end = time.monotonic() + GRACE
            while self._process.poll() is None and time.monotonic() < end:
                time.sleep(0.2)
        return submitit.helpers.DelayedSubmission(Train(self._command))


def launch(plan: Plan, members: Sequence[Member], options: Options) -> int:
    """Submits the members that no job of an earlier call still stands for, and returns without waiting for them."""
    if options.dry_run:
        return _preview(options)
    folder = plan.workdir / FOLDER
    submitted = json.loads((folder / "jobs.json").read_text()) if (folder / "jobs.json").exists() else {}
    executor = make_executor(folder, options)
    queued = _queued() if executor.cluster == "slurm" else set()
    waiting = [member for member in members if submitted.get(member.name) not in queued]
    if not waiting:
        print(f"{plan.workdir}: every member is finished, running or queued.")
        return 0
    write(plan)
    jobs = executor.submit_array([Train(plan.command(member)) for member in waiting])
    submitted |= {member.name: job.job_id for member, job in zip(waiting, jobs, strict=True)}
    _write(folder / "jobs.json", submitted)
    for member, job in zip(waiting, jobs, strict=True):
        print(f"job {job.job_id}  {member.name}")
    return 0


def _preview(options: Options) -> int:
    """Prints the batch script that would be submitted."""
    with tempfile.TemporaryDirectory() as folder:  # submitit makes its folder at once
        executor = make_executor(Path(folder), options)
        if executor.cluster == "slurm":
            print(executor._executor._make_submission_file_text("COMMAND", "ID").replace(folder, FOLDER))
    return 0


def make_executor(folder: Path, options: Options) -> Any:
    """submitit's executor with the options' cluster parameters. Raises UserError where it cannot be had."""
    try:
        import submitit
    except ImportError as error:
        message = '--launcher=slurm needs submitit, which is not installed: pip install -e ".[sweeps]".'
        raise UserError(message) from error
    parameters = {"name": "latent-sweep", "timeout_min": 60, **options.cluster}
    if options.jobs:
        parameters["slurm_array_parallelism"] = options.jobs
    cluster = parameters.pop("cluster", "slurm")
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**parameters)
    except Exception as error:  # submitit raises RuntimeError, ValueError, NameError, TypeError, AssertionError
        raise UserError(f"--cluster: {' '.join(str(error).split())}") from error
    return executor


def _queued() -> set[str]:
    """Identifiers of this user's jobs that wait or run."""
    if shutil.which("squeue") is None:
        return set()
    command = ["squeue", "--noheader", "--array", "--format=%i", f"--user={os.environ.get('USER', os.getuid())}"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    if listed.returncode:
        raise UserError(f"squeue does not answer ({listed.stderr.strip()}): jobs might be submitted twice.")
    return set(listed.stdout.split())


def _write(path: Path, jobs: Mapping[str, str]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(jobs, indent=1) + "\n")
    temporary.rename(path)
