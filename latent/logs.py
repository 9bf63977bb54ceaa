"""What a run says of itself while it trains: metrics.jsonl, pictures, live progress, W&B.

metrics.jsonl is the source of truth and the only sink that may stop a run. Pictures, progress and W&B fail soft
(law 13): the first failure of one is reported in a line and switches that one off.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from latent.metrics.passport import valid
from latent.tracking import Tracker, WandbOptions

FILE = "metrics.jsonl"
REDRAW = 0.25
"""Seconds between two redraws of the live bar: progress must cost the loop nothing."""


class Timing(NamedTuple):
    """How the steps since the last line went: how many, their wall time, and how much of it the device waited for
    input, both in seconds; the operations of one step, and the best rate (operations a second) of what a run has of
    the devices, None where they are not known."""

    steps: int
    seconds: float
    waited: float
    flops: float | None = None
    peak: float | None = None

    def performance(self) -> dict[str, float]:
        """Operations a step and a second (flops.py), and the share of the best rate, as far as they are known."""
        if not self.steps or self.flops is None:
            return {}
        rate = self.flops * self.steps / max(self.seconds, 1e-9)
        found = {"perf/flops_per_step": self.flops, "perf/flops_per_second": rate}
        return found if self.peak is None else {**found, "perf/mfu": rate / self.peak}


class Logs:
    """The sinks of one run. Use it as a context manager or close it: pending W&B records are lost otherwise.

    Lines of a metrics.jsonl that are later than `start_step` are cut, for the run will write them again.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        config: Mapping[str, Any],
        total_steps: int,
        start_step: int,
        batch_size: int,
        wandb: WandbOptions,
        stream: Any = None,
    ):
        self._workdir, self._batch_size = workdir, batch_size
        self._failed: set[str] = set()
        self._stream = sys.stdout if stream is None else stream
        cut(workdir / FILE, start_step)
        self._file = open(workdir / FILE, "a")  # noqa: SIM115 - open as long as the run
        self._progress = self._open_progress(start_step, total_steps)
        self._tracker = Tracker(workdir, config, wandb, self._report)

    def __enter__(self) -> Logs:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self.close(0 if kind is None else 1)

    def train(self, step: int, values: Mapping[str, Any], *, timing: Timing) -> None:
        """One line of training metrics with its throughput, which is absent where no steps were timed."""
        rate = timing.steps / max(timing.seconds, 1e-9)
        speed = {"steps_per_second": rate, "images_per_second": rate * self._batch_size}
        speed = {**speed, "input_wait": timing.waited / max(timing.seconds, 1e-9)} if timing.steps else {}
        self._line(step, "train", {**values, **speed, **timing.performance()})
        self._soft("progress", lambda: self._progress.train(step, values, **speed))

    def evaluation(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """One line of evaluation metrics."""
        self._line(step, split, values)
        self._soft("progress", lambda: self._progress.evaluation(step, split, values))

    def images(self, step: int, name: str, grid: UInt8[np.ndarray, "height width *channels"]) -> None:
        """A picture, grey or in colour ([height, width] or [height, width, 3]): images/STEP-NAME.png, and W&B."""
        if grid.ndim == 2:
            grid = np.repeat(grid[..., None], 3, axis=-1)

        def write() -> None:
            from PIL import Image

            folder = self._workdir / "images"
            folder.mkdir(exist_ok=True)
            Image.fromarray(grid).save(folder / f"{step}-{name}.png")

        self._soft("pictures", write)
        self._tracker.image(step, name, grid)

    def pictures(self, step: int, draw: Callable[[], Iterable[tuple[str, np.ndarray]]]) -> None:
        """Draws and writes pictures; drawing may fail as softly as writing."""

        def each() -> None:
            for name, grid in draw():
                self.images(step, name, grid)

        self._soft("pictures", each)

    def advance(self, step: int) -> None:
        """Moves the live bar; cheap enough to be called after every dispatch."""
        self._soft("progress", lambda: self._progress.advance(step))

    def message(self, text: str) -> None:
        """A line for the user, clear of the live bar."""
        self._soft("progress", lambda: self._progress.message(text))

    def close(self, exit_code: int) -> None:
        """Ends every sink; waits a limited time for W&B."""
        self._soft("progress", self._progress.close)
        try:
            self._file.close()
        finally:
            self._soft("W&B", lambda: self._tracker.close(exit_code))

    def _line(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        record = {"step": step, "time": time.time(), "split": split, **values}
        self._file.write(json.dumps(valid(record), allow_nan=False) + "\n")
        self._file.flush()
        self._tracker.scalars(step, split, values)

    def _soft(self, sink: str, call: Callable[[], None]) -> None:
        if sink in self._failed:
            return
        try:
            call()
        except (Exception, SystemExit) as error:  # rich raises SystemExit where its pipe is broken
            self._failed.add(sink)
            if sink == "progress":
                with contextlib.suppress(Exception, SystemExit):
                    self._progress.close()  # gives back the cursor and sys.stdout
            self._report(f"{sink} switched off: {type(error).__name__}: {error}")

    def _open_progress(self, start: int, total: int) -> PlainProgress | LiveProgress:
        try:
            return make_progress(self._stream, start, total)
        except (Exception, SystemExit) as error:
            self._report(f"live progress switched off: {type(error).__name__}: {error}")
            return PlainProgress(self._stream, total)

    def _report(self, text: str) -> None:
        with contextlib.suppress(Exception, SystemExit):  # stderr may be as broken as the sink
            print(f"warning: {text}", file=sys.stderr)


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; a last line that was torn by a kill is left out."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    whole = text.split("\n")[:-1]  # without a final newline the last line is not finished
    return [json.loads(line) for line in whole if line]


def cut(path: Path, step: int) -> None:
    """Removes lines later than `step` and a torn last line; the file is replaced whole or not at all."""
    kept = [line for line in read(path) if line["step"] <= step]
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
    temporary.rename(path)


# Progress ------------------------------------------------------------------------------------------------------


def make_progress(stream: Any, start: int, total: int) -> PlainProgress | LiveProgress:
    """A live bar on a terminal, plain lines elsewhere."""
    if stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown"):  # others cannot redraw a line
        return LiveProgress(stream, start, total)
    return PlainProgress(stream, total)


def shown(values: Mapping[str, Any], width: int = 11) -> str:
    """Loss terms for people: names without what every run has, values with five digits, in columns of `width`."""
    hidden = ("gradient_norm", "learning_rate")
    pairs = [(name, value) for name, value in values.items() if name.rpartition("/")[2] not in hidden]
    players = {name.partition("/")[0] for name, _ in pairs if "/" in name}
    short = lambda name: name.rpartition("/")[2] if len(players) == 1 else name  # noqa: E731
    return "  ".join(f"{short(name)} {value:<{width}.5g}" for name, value in pairs)


def duration(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def quantity(value: float) -> str:
    """A number to three digits with its unit: 52.7k, 1.25M."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * limit:  # 999.6 rounds to 1k, not to 1e+03
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def memory() -> str:
    """Peak memory: the device's where it says so, else this process's."""
    import resource

    import jax

    statistics = jax.local_devices()[0].memory_stats() or {}
    peak = statistics.get("peak_bytes_in_use") or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"{peak / 2**30:.2f} GiB"


class PlainProgress:
    """Lines for a pipe or a file, aligned, one for each log."""

    def __init__(self, stream: Any, total: int):
        self._stream, self._total, self._width = stream, total, len(str(total))

    def train(self, step: int, values: Mapping[str, Any], **speed: float) -> None:
        head, tail = f"step {step:>{self._width}}/{self._total}", ""
        if speed:
            rate, images = speed["steps_per_second"], speed["images_per_second"]
            head += f"  {quantity(rate):>6} it/s  {quantity(images):>6} img/s"
            tail = f"  wait {100 * speed['input_wait']:.1f}%  ETA {duration((self._total - step) / rate)}"
        self.message(f"{head}  {shown(values)}{tail}")

    def evaluation(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        self.message(f"step {step:>{self._width}}/{self._total}  {split}: {shown(values)}")

    def advance(self, step: int) -> None:
        pass

    def message(self, text: str) -> None:
        print(text.rstrip(), file=self._stream, flush=True)

    def close(self) -> None:
        pass


class LiveProgress:
    """Two lines on a terminal: a bar with step, rates, time left, input wait and memory; below it the loss terms, so
    that both fit into 80 columns."""

    def __init__(self, stream: Any, start: int, total: int):
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.text import Text

        self._total, self._drawn, self._terms = total, 0.0, ""
        self._fields = {"rate": "", "left": "", "wait": "", "memory": ""}
        columns = [
            TextColumn("step {task.completed:>" + str(len(str(total))) + ".0f}/{task.total:.0f}"),
            BarColumn(bar_width=24),
            *(TextColumn("{task.fields[" + name + "]}", markup=False) for name in self._fields),
        ]
        self._console = Console(file=stream, force_terminal=True)
        self._bar = Progress(*columns, console=self._console, auto_refresh=False)
        self._task = self._bar.add_task("", total=total, completed=start, **self._fields)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            redirect_stderr=sys.stderr.isatty(),  # `2> file` still gets the warnings
            get_renderable=lambda: Group(self._bar, Text(self._terms, no_wrap=True, overflow="ellipsis")),
        )
        self._live.start()

    def train(self, step: int, values: Mapping[str, Any], **speed: float) -> None:
        self._terms = shown(values, width=1)
        self._fields["memory"] = memory()
        if speed:
            rate, images = speed["steps_per_second"], speed["images_per_second"]
            self._fields["wait"] = f"wait {100 * speed['input_wait']:.1f}%"
            self._fields["rate"] = f"{quantity(rate)} it/s {quantity(images)} img/s"
            self._fields["left"] = f"ETA {duration((self._total - step) / rate)}"
        self._show(step)

    def evaluation(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        self.message(f"step {step}  {split}: {shown(values)}")

    def advance(self, step: int) -> None:
        if time.monotonic() - self._drawn >= REDRAW:
            self._show(step)

    def message(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        self._live.stop()

    def _show(self, step: int) -> None:
        self._drawn = time.monotonic()
        self._bar.update(self._task, completed=step, **self._fields)
        self._live.refresh()
