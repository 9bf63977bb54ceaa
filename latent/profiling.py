"""A JAX trace of a few steps of a training. Knows neither the loop nor what it computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

DISPATCHES = 3
"""Traced, after the first one, which compiles."""


class Profile:
    """Traces some dispatches into the folder `directory`; None: nothing. Use it as a context manager.

    `begin` when the compiling is done, `advance` after every dispatch. `say` is told where the trace is.
    """

    def __init__(self, directory: Path | None, say: Callable[[str], None]):
        self._directory, self._say = directory, say
        self._running, self._left = False, DISPATCHES

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, *_: Any) -> None:
        self._end()
        if self._directory is not None and self._left == DISPATCHES:
            self._say("--profile: no trace, there was no step after the first dispatch (train.steps_per_dispatch).")

    def begin(self) -> None:
        """Starts the trace."""
        if self._directory is not None:
            jax.profiler.start_trace(str(self._directory))
            self._running = True

    def advance(self, results: Any) -> None:
        """Counts a dispatch; waits for the last one's results and ends the trace."""
        if not self._running:
            return
        self._left -= 1
        if self._left == 0:
            jax.block_until_ready(results)
            self._end()

    def _end(self) -> None:
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
            self._say(f"{DISPATCHES - self._left} dispatches traced: {self._directory} (xprof, TensorBoard)")
