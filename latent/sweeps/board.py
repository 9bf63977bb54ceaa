"""What a sweep says while it runs: a live table on a terminal, a line an event elsewhere. Fails soft (law 13)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

from latent.logs import duration
from latent.sweeps import progress
from latent.sweeps.plan import Member, Plan

ROWS = 20
"""Members shown at once on a terminal: those that run, then the newest of the others."""

REFRESH = 1.0
"""Seconds between two looks at the files of the members that run."""


class Board:
    """The members of one sweep by state. `stream` gets lines, or the live table where it is a terminal."""

    def __init__(self, plan: Plan, total: int, done: int, stream: Any):
        self._plan, self._total, self._stream = plan, total, stream
        self._done, self._failed, self._stopped = done, 0, 0
        self._rows: dict[str, dict[str, Any]] = {}
        self._best: tuple[str, float] | None = None
        self._looked, self._live = 0.0, None
        if stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown"):
            with contextlib.suppress(Exception, SystemExit):
                self._live = self._start_live()

    def look(self, member: Member) -> progress.Progress:
        """Reads a member's progress, for the table and for the best value so far."""
        found = progress.read(self._plan.directory(member), self._plan.metric)
        if found.curve and self._plan.metric:
            value = found.curve[-1][1]
            row = self._rows.setdefault(member.name, {"state": "finished"})
            row["value"] = value
            if self._best is None or self._plan.metric.best([value, self._best[1]]) != self._best[1]:
                self._best = (member.name, value)
        return found

    def started(self, member: Member) -> None:
        """A member's process has started."""
        self._rows.pop(member.name, None)
        self._rows[member.name] = {"state": "running", "steps": member.steps, "step": 0, "since": time.monotonic()}
        self._say(f"started   {member.name}")

    def ended(self, member: Member, outcome: str, reason: str = "") -> None:
        """A member's process has ended: finished, failed, stopped or pruned."""
        row = self._rows[member.name]
        found = self.look(member)
        row |= {"state": outcome, "step": found.step, "reason": reason}
        self._done += outcome in ("finished", "pruned")
        self._failed += outcome == "failed"
        self._stopped += outcome == "stopped"
        value = f"  {self._plan.metric.name} {row['value']:.5g}" if "value" in row else ""
        took = duration(time.monotonic() - row["since"])
        self._say(f"{outcome:<9} {member.name}  {self._count()}  {took}{value}{'  ' + reason if reason else ''}")

    def refresh(self, running: list[Member]) -> None:
        """Looks at the members that run, at most once in `REFRESH` seconds."""
        if self._live is None or time.monotonic() - self._looked < REFRESH:
            return
        self._looked = time.monotonic()
        for member in running:
            found = self.look(member)
            left = duration((member.steps - found.step) / found.rate) if found.rate else ""
            self._rows[member.name] |= {"step": found.step, "left": left}
        self._soft(lambda: self._live.update(self._table(), refresh=True))

    def message(self, text: str) -> None:
        """A line for the user, clear of the table."""
        self._say(text)

    def close(self) -> None:
        """Ends the live table and says how it stands."""
        if self._live is not None:
            self._soft(lambda: self._live.update(self._table(), refresh=True))
            self._soft(self._live.stop)
            self._live = None
        self._say(self._summary())

    def _count(self) -> str:
        return f"{self._done} of {self._total}"

    def _summary(self) -> str:
        parts = [f"{self._plan.workdir}: {self._count()} finished"]
        parts += [f"{self._failed} failed"] * bool(self._failed) + [f"{self._stopped} stopped"] * bool(self._stopped)
        best = f"; best {self._plan.metric.name} {self._best[1]:.5g}: {self._best[0]}" if self._best else ""
        return ", ".join(parts) + best

    def _say(self, line: str) -> None:
        if self._live is None:
            self._soft(lambda: print(line.rstrip(), file=self._stream, flush=True))
        elif not line.startswith("started"):
            self._soft(lambda: self._live.console.print(line.rstrip(), highlight=False, markup=False))

    def _soft(self, call: Callable[[], Any]) -> None:
        with contextlib.suppress(Exception, SystemExit):  # rich raises SystemExit where its pipe is broken
            call()

    def _start_live(self) -> Any:
        from rich.console import Console
        from rich.live import Live

        live = Live(console=Console(file=self._stream, force_terminal=True), auto_refresh=False)
        live.start()
        return live

    def _table(self) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        metric = self._plan.metric.name if self._plan.metric else ""
        table = Table("member", "state", "step", "left", metric, box=None)
        rows = sorted(self._rows.items(), key=lambda item: item[1]["state"] == "running")
        for name, row in rows[-ROWS:]:
            value = f"{row['value']:.5g}" if "value" in row else ""
            steps = f"{row['step']}/{row['steps']}" if "steps" in row else ""
            best = " *" if self._best and self._best[0] == name else ""
            left = row.get("left", "") if row["state"] == "running" else ""
            table.add_row(name + best, row["state"], steps, left, value)
        return Group(Text(self._summary(), no_wrap=True, overflow="ellipsis"), table)
