"""Commands that wait for each other, as processes of this machine, several at a time; cores and GPUs are shared out
between them. Knows no experiment: what a command does is its own affair."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from latent.sweeps.launchers.local import Share, spawn
from latent.train import Stop

POLL = 0.1
"""Seconds between two looks at the processes."""


class Task(NamedTuple):
    """A command, the file that gets what it prints, and the names of the tasks that must have ended well before it."""

    name: str
    command: list[str]
    output: Path
    after: tuple[str, ...] = ()


def run(tasks: Sequence[Task], places: Sequence[Share], say: Callable[[str], None] = print) -> int:
    """Runs tasks, one in each place at a time. Returns 0, the first other exit code, or 143 and 130 when stopped.

    A failure stops nothing but the tasks that wait for it; a signal is passed on as SIGTERM.
    """
    pool = _Pool(tasks, places, say)
    try:
        with Stop() as stop:
            while pool.step(stop.signal is not None):
                time.sleep(POLL)
        return 128 + stop.signal if stop.signal else pool.code
    finally:
        pool.kill()


class _Pool:
    """What waits, what runs in which place, and how the others ended."""

    def __init__(self, tasks: Sequence[Task], places: Sequence[Share], say: Callable[[str], None]):
        self._waiting, self._free, self._say = list(tasks), list(places), say
        self._running: list[tuple[Task, subprocess.Popen, Share]] = []
        self._done, self._told, self.code = set(), False, 0

    def step(self, stopping: bool) -> bool:
        """Hears who has ended and starts who is next. False when nothing is left to wait for."""
        for job in [job for job in self._running if job[1].poll() is not None]:
            self._running.remove(job)
            self._end(*job)
        if stopping and not self._told:
            self._told = True
            for _, process, _ in self._running:
                process.send_signal(signal.SIGTERM)
        while not stopping and self._free and (task := self._next()) is not None:
            place = self._free.pop(0)
            self._say(f"started   {task.name}")
            self._running.append((task, spawn(task.command, task.output, place), place))
        return bool(self._running)

    def kill(self) -> None:
        """Ends what runs, at once."""
        for _, process, _ in self._running:
            process.kill()
            process.wait()

    def _next(self) -> Task | None:
        ready = [task for task in self._waiting if self._done.issuperset(task.after)]
        if ready:
            self._waiting.remove(ready[0])
        return ready[0] if ready else None

    def _end(self, task: Task, process: subprocess.Popen, place: Share) -> None:
        self._free.append(place)
        code = process.returncode
        if code == 0:
            self._done.add(task.name)
            self._say(f"finished  {task.name}")
            return
        self.code = self.code or (code if code > 0 else 128 - code)
        self._say(f"exit {code}  {task.name}: {_last_line(task.output)} ({task.output})")


def _last_line(path: Path) -> str:
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "nothing printed"
