"""Members as processes of this machine, several at a time; cores and GPUs are shared out between them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from latent.errors import UserError
from latent.sweeps import progress
from latent.sweeps.board import Board
from latent.sweeps.launchers.options import Options
from latent.sweeps.plan import Member, Plan, write
from latent.train import Stop

POLL = 0.1
"""Seconds between two looks at the processes."""

WATCH = 0.5
"""Seconds between two questions whether a member should go on: each reads its metrics."""


class Share(NamedTuple):
    """What one of the members that run at a time may use: cores, and variables of its environment."""

    cores: frozenset[int]
    environment: dict[str, str]


class Source(NamedTuple):
    """Where members come from. `take` gives the next one, or None while there is none; `watch` says of one that runs
    whether it should stop; `ended` hears how it ended (finished, failed, stopped, pruned)."""

    take: Callable[[], Member | None]
    watch: Callable[[Member], bool] = lambda member: False
    ended: Callable[[Member, str], None] = lambda member, outcome: None


def launch(plan: Plan, members: Sequence[Member], options: Options) -> int:
    """Runs the members. Returns 0 when all of the plan are finished, 1 when some failed, 143 or 130 when stopped."""
    if options.dry_run:
        return 0
    write(plan)
    waiting: Iterator[Member] = iter(members)
    done = [member for member in plan.members if progress.finished(plan, member)]
    return run(plan, len(plan.members), done, Source(lambda: next(waiting, None)), options)


def run(plan: Plan, total: int, done: Sequence[Member], source: Source, options: Options) -> int:
    """Runs what the source gives, `options.jobs` at a time, until it gives no more; `done` of `total` members are not
    among it. A failure stops nothing else; a signal is passed on as SIGTERM, so that every member saves what it has."""
    places = shares(options.jobs, cores(), gpus())
    board = Board(plan, total, len(done), sys.stdout)
    for member in done:
        board.look(member)
    pool = Pool(plan, places, source, board)
    try:
        with Stop() as stop:
            while pool.step(stop.signal is not None):
                time.sleep(POLL)
        return 128 + stop.signal if stop.signal else int(pool.failures > 0)
    finally:
        pool.kill()  # only after a second signal is there anything left to kill; by law 4 that loses little
        board.close()


class Pool:
    """The processes that run at the moment, each in its place."""

    def __init__(self, plan: Plan, places: Sequence[Share], source: Source, board: Board):
        self._plan, self._source, self._board = plan, source, board
        self._free, self._running = list(places), []
        self._watched = 0.0
        self._asked: dict[str, str] = {}  # members told to stop, and how they will have ended
        self.failures = 0

    def step(self, stopping: bool) -> bool:
        """Hears who has ended and starts who is next. False when there is nothing left to wait for."""
        for job in [job for job in self._running if job[1].poll() is not None]:
            self._running.remove(job)
            self._free.append(job[2])
            self._end(job[0], job[1].returncode)
        if stopping:
            self._stop_all()
        while self._free and not stopping and (member := self._source.take()) is not None:
            share = self._free.pop(0)
            self._running.append((member, start(self._plan, member, share), share))
            self._board.started(member)
        self._watch()
        self._board.refresh([member for member, _, _ in self._running])
        return bool(self._running)

    def kill(self) -> None:
        """Ends what runs, at once."""
        for _, process, _ in self._running:
            process.kill()
            process.wait()

    def _watch(self) -> None:
        if time.monotonic() - self._watched < WATCH:
            return
        self._watched = time.monotonic()
        for member, process, _ in self._running:
            if member.name not in self._asked and self._source.watch(member):
                self._asked[member.name] = "pruned"
                process.send_signal(signal.SIGTERM)

    def _stop_all(self) -> None:
        for member, process, _ in self._running:
            if member.name not in self._asked:
                self._asked[member.name] = "stopped"
                self._board.message(f"stopping  {member.name}")
                process.send_signal(signal.SIGTERM)

    def _end(self, member: Member, code: int) -> None:
        directory = self._plan.directory(member)
        outcome = "finished" if code == 0 else self._asked.get(member.name, "failed")
        self.failures += outcome == "failed"
        reason = ""
        if outcome == "failed":
            words = f"exit {code}: {progress.last_words(directory)}"
            reason = f"{words if code > 0 else signal.Signals(-code).name} ({directory / progress.OUTPUT})"
        self._board.ended(member, outcome, reason)
        self._source.ended(member, outcome)


def start(plan: Plan, member: Member, share: Share) -> subprocess.Popen:
    """Starts a member in its share of the machine."""
    directory = plan.directory(member)
    directory.mkdir(parents=True, exist_ok=True)
    return spawn(plan.command(member), directory / progress.OUTPUT, share)


def spawn(command: Sequence[str], path: Path, share: Share) -> subprocess.Popen:
    """Starts a command in a share of the machine; what it prints is added to the file `path`. It hears no signal of the
    terminal: who started it passes them on."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    with open(path, "ab") as output:
        try:
            if before:
                os.sched_setaffinity(0, share.cores)  # a process inherits it; XLA sizes its thread pool by it
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **share.environment},
                start_new_session=True,
            )
        finally:
            if before:
                os.sched_setaffinity(0, before)


# Shares --------------------------------------------------------------------------------------------------------


def cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The NVIDIA GPUs that members may use, as CUDA_VISIBLE_DEVICES names them."""
    if environment.get("JAX_PLATFORMS", "").startswith("cpu"):
        return []
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [name for name in environment["CUDA_VISIBLE_DEVICES"].split(",") if name]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(
        ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return listed.stdout.split() if listed.returncode == 0 else []


def shares(jobs: int, cores: Sequence[int], gpus: Sequence[str]) -> list[Share]:
    """The machine in `jobs` parts: disjoint cores while there are enough, a GPU each, memory divided where several
    share one. 0 jobs: one a GPU, or one for two cores."""
    jobs = jobs or len(gpus) or max(1, len(cores) // 2)
    if jobs < 0:
        raise UserError(f"--jobs={jobs} must not be negative.")
    parts = []
    for number in range(jobs):
        mine = cores[number * len(cores) // jobs : (number + 1) * len(cores) // jobs] or [cores[number % len(cores)]]
        environment = {"OMP_NUM_THREADS": str(len(mine)), "OPENBLAS_NUM_THREADS": str(len(mine))}
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
            crowd = -(-jobs // len(gpus))
            if crowd > 1:
                environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 / crowd:.3f}"
        parts.append(Share(frozenset(mine), environment))
    return parts
