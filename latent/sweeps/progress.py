"""How far a member is, read from its work directory: nothing is asked of the process that trains it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import NamedTuple

from latent import logs
from latent.checkpoint import DIRECTORY
from latent.sweeps.plan import Member, Metric, Plan

OUTPUT = "output.log"
"""What a member printed, in its work directory; every start adds to it."""

LONGEST = 300
"""Letters of a reason."""


class Progress(NamedTuple):
    """The last logged step, the metric's (step, value) so far, and steps a second while it last trained."""

    step: int
    curve: tuple[tuple[int, float], ...]
    rate: float | None


def finished(plan: Plan, member: Member) -> bool:
    """Whether the member has the checkpoint of its last step: where `experiments.train` says it has nothing to do."""
    return newest_checkpoint(plan.directory(member)) >= member.steps


def newest_checkpoint(directory: Path) -> int:
    """The step of the newest checkpoint, 0 where there is none."""
    return max(checkpoints(directory), default=0)


def checkpoints(directory: Path) -> list[int]:
    """The steps of the checkpoints, ascending. Orbax names a directory by its step when whole."""
    folder = directory / DIRECTORY
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())


def in_use(directory: Path) -> bool:
    """Whether a process trains in the directory now (it holds the lock of `provenance.claimed`)."""
    if not directory.is_dir():
        return False
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def state(plan: Plan, member: Member) -> str:
    """finished, running (by a process of another command), started, or missing."""
    directory = plan.directory(member)
    if finished(plan, member):
        return "finished"
    if in_use(directory):
        return "running"
    return "started" if (directory / "config.json").exists() else "missing"


def read(directory: Path, metric: Metric | None) -> Progress:
    """What metrics.jsonl says so far. Values that are not finite are left out of the curve."""
    lines = logs.read(directory / logs.FILE)
    name = metric.name if metric else None
    curve = tuple((line["step"], line[name]) for line in lines if isinstance(line.get(name), int | float))
    rates = [line["steps_per_second"] for line in lines if "steps_per_second" in line]
    return Progress(lines[-1]["step"] if lines else 0, curve, rates[-1] if rates else None)


def last_words(directory: Path) -> str:
    """The last line that a member printed: the reason where it failed."""
    try:
        lines = (directory / OUTPUT).read_text(errors="replace").split("\n")
    except OSError:
        return ""
    spoken = [line.strip() for line in lines if line.strip()]
    return " ".join(spoken[-1].split())[:LONGEST] if spoken else ""
