"""W&B, at arm's length: its own client, in a thread of its own, and never a reason for a run to wait or to stop.

The client takes seconds to import and to start. Records queue up meanwhile, in order; a failure anywhere switches
tracking off and reports one line.
"""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from latent.errors import unknown_name

MODES = ("auto", "online", "offline", "disabled")
ID_FILE = "wandb/run_id.txt"
CLOSE_SECONDS = 60.0
"""How long a finished run waits for what is still queued."""
_STARTING = threading.Lock()
"""Held while a run starts offline: several at once take longer than one after another."""


class WandbOptions(NamedTuple):
    """`mode`: online, offline, disabled, or auto (WANDB_MODE if set, else online with a key and offline without)."""

    mode: str = "auto"
    project: str = "latent"
    group: str = ""
    name: str = ""


def check_mode(mode: str) -> None:
    """Raises UserError for an unknown `log.wandb`."""
    if mode not in MODES:
        raise unknown_name("log.wandb", mode, MODES)


class Tracker:
    """One run at W&B. `report` is called with one line when something goes wrong."""

    def __init__(self, workdir: Path, config: Mapping[str, Any], options: WandbOptions, report: Callable[[str], None]):
        self._workdir, self._config, self._options, self._report = workdir, config, options, report
        self._queue: queue.Queue[Callable[[Any], None] | None] = queue.Queue()
        self._mode = _mode(options.mode)
        self._exit_code, self._failed = 0, False
        self._thread: threading.Thread | None = None
        if self._mode != "disabled":
            self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
            self._thread.start()

    def scalars(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Logs numbers at our own step; names are "<split>/<name>"."""
        record = {"step": step, **{f"{split}/{name}": value for name, value in values.items()}}
        self._put(lambda run: run.log(record))

    def image(self, step: int, name: str, grid: UInt8[np.ndarray, "height width 3"]) -> None:
        """Logs a picture."""

        def log(run: Any) -> None:
            import wandb

            run.log({"step": step, f"images/{name}": wandb.Image(grid)})

        self._put(log)

    def close(self, exit_code: int) -> None:
        """Ends the run at W&B, waiting at most a minute for what is queued."""
        if self._thread is None:  # disabled
            return
        self._exit_code = exit_code
        self._queue.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._report("W&B has not finished in time; metrics.jsonl is complete")

    def _put(self, call: Callable[[Any], None]) -> None:
        if self._thread is not None and not self._failed:
            self._queue.put(call)

    def _work(self) -> None:
        try:
            run = self._start()
            while (call := self._queue.get()) is not None:
                call(run)
            run.finish(exit_code=self._exit_code)
        except Exception as error:
            self._failed = True
            self._report(
                f"W&B switched off: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            )

    def _start(self) -> Any:
        import wandb

        mode = self._mode
        try:
            if mode == "auto":  # with a key and without a network login fails too
                mode = "online" if wandb.login(prompt=False) else "offline"
            return self._init(mode)
        except Exception as error:
            if mode == "offline":
                raise
            self._report(
                f"W&B is offline: {type(error).__name__}; `wandb sync {self._workdir}/wandb/...` sends it later"
            )
            return self._init("offline")

    def _init(self, mode: str) -> Any:
        import wandb

        identifier = self._workdir / ID_FILE
        identifier.parent.mkdir(exist_ok=True)
        if not identifier.exists() or not identifier.read_text():
            identifier.write_text(secrets.token_hex(4))
        settings = wandb.Settings(
            silent=True,
            console="off",
            init_timeout=12,
            x_disable_stats=True,
            x_disable_meta=True,
            save_code=False,
        )
        with _STARTING if mode == "offline" else contextlib.nullcontext():
            run = wandb.init(
                project=self._options.project,
                group=self._options.group or None,
                name=self._options.name or None,
                dir=str(self._workdir),
                mode=mode,
                id=identifier.read_text(),
                resume="allow",
                reinit="create_new",  # by default it returns a run that is active: another member of a population
                config=dict(self._config),
                settings=settings,
            )
        run.define_metric("*", step_metric="step")  # W&B drops what is logged behind its own step counter
        return run


def _mode(asked: str) -> str:
    """The environment decides where the config says auto; an explicit choice stands."""
    chosen = os.environ.get("WANDB_MODE", "auto") if asked == "auto" else asked
    return chosen if chosen in MODES else "auto"
