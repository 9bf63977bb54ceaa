"""Checkpoints of a run: Orbax, asynchronous, exact, with a digest that tells a damaged one from a good one.

Owns `checkpoints/` of a work directory. Knows a `State` and a small JSON beside it; knows no model and no driver.
Processes that train together write and read the same checkpoints, each its part: all must call the same in order.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import logging
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree, UInt8
from orbax.checkpoint.checkpoint_managers import preservation_policy

from latent import hosts, memory
from latent.errors import UserError
from latent.types import State

log = logging.getLogger(__name__)
DIRECTORY = "checkpoints"
PACKED = "packed"
"""The item of a checkpoint whose arrays are kept one behind the other; otherwise it is called `state`."""
PACKED_BELOW = 2**24
"""Bytes: smaller states are packed. Orbax takes about as long for a small array as for a large one, and a state has a
hundred of them; larger ones are written in parts and in parallel."""


class DamagedCheckpoint(Exception):
    """A checkpoint whose arrays are not those that were saved."""


def digest(tree: PyTree) -> str:
    """SHA-256 over paths, dtypes, shapes and bytes of every leaf."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = hosts.fetch(leaf)
        total.update(f"{jax.tree_util.keystr(path)}|{array.dtype}|{array.shape}|".encode())
        total.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)  # bfloat16 has no buffer of its own
    return total.hexdigest()


def pack(tree: PyTree) -> UInt8[np.ndarray, "bytes"]:
    """The bytes of every leaf, in order."""
    return np.concatenate([np.ascontiguousarray(leaf).reshape(-1).view(np.uint8) for leaf in jax.tree.leaves(tree)])


def unpack(packed: UInt8[np.ndarray, "bytes"], target: PyTree) -> PyTree:
    """The tree that was packed, its shapes, types and places those of `target`.

    Raises DamagedCheckpoint where it has another size.
    """
    if packed.nbytes != memory.size(target):
        raise DamagedCheckpoint(f"{packed.nbytes} bytes are no state of {memory.size(target)}")
    found, start = [], 0
    for leaf in jax.tree.leaves(target):
        size = math.prod(leaf.shape) * leaf.dtype.itemsize
        array = packed[start : start + size].view(leaf.dtype).reshape(leaf.shape)
        found.append(jax.device_put(array, leaf.sharding))
        start += size
    return jax.tree.unflatten(jax.tree.structure(target), found)


def abstract(state: State, sharding: Any) -> State:
    """Shapes and dtypes of a state (concrete or from `jax.eval_shape`), to be restored onto `sharding`: one for all
    arrays, or a `State` of them."""
    where = sharding if isinstance(sharding, State) else jax.tree.map(lambda _: sharding, state)
    return jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), state, where)


def by_itself() -> ocp.options.MultiprocessingOptions:
    """Orbax's options for what one of several processes reads or writes without the others."""
    if hosts.alone():
        return ocp.options.MultiprocessingOptions()
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(me, active_processes={me}, barrier_sync_key_prefix=f"process{me}")


class Checkpoints:
    """The checkpoints of one work directory: the newest ones, and the best by an evaluation metric.

    `keep` newest are kept (at least 2: a damaged newest one needs something to fall back to) and one best, by
    `best_metric` of the metrics given to `save`, minimal or maximal by `best_mode`. `apart`: to be read by this process
    alone, whatever others do.
    """

    def __init__(
        self, workdir: Path, keep: int = 2, best_metric: str = "", best_mode: str = "min", apart: bool = False
    ):
        if best_mode not in ("min", "max"):
            raise UserError(f"checkpoint.best_mode={best_mode!r} is not known. Allowed: max, min.")
        if keep < 2:
            raise UserError(f"checkpoint.keep={keep} must be at least 2: a damaged newest one needs a predecessor.")
        policies: list[Any] = [preservation_policy.LatestN(keep)]
        options: dict[str, Any] = {}
        if best_metric:
            worst = -math.inf if best_mode == "max" else math.inf
            # A checkpoint of before this metric was asked for has other numbers: it is never the best.
            score = lambda metrics: (metrics or {}).get(best_metric, worst)  # noqa: E731
            policies.append(
                preservation_policy.BestN(
                    n=1,
                    get_metric_fn=score,
                    reverse=best_mode == "min",  # Orbax: reverse=True keeps the smallest
                    keep_checkpoints_without_metrics=False,
                )
            )
            options = {"best_fn": score, "best_mode": best_mode}  # without best_fn, best_step() is the latest
        if apart:
            options |= {"multiprocessing_options": by_itself(), "create": hosts.alone()}
        self._apart = apart
        self._directory = Path(workdir, DIRECTORY).absolute()  # a relative path fails later, in a background thread
        self._options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy(policies), **options
        )
        self._best_metric = best_metric

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        # Made at the first use, because making it creates the directory: reading must not write.
        return ocp.CheckpointManager(self._directory, options=self._options)

    def save(self, state: State, meta: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Saves in the background. A step that is there already (the loop saved it a moment ago) is left alone."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        if self._best_metric and self._best_metric not in metrics:
            metrics = {}  # never evaluated at this step: it cannot be the best, but it can be the newest
        if memory.size(state) < PACKED_BELOW and jax.process_count() == 1:
            state = jax.device_get(state)
            arrays = {PACKED: ocp.args.StandardSave({"bytes": pack(state)})}
        else:
            arrays = {"state": ocp.args.StandardSave(state)}
        meta = ocp.args.JsonSave({**meta, "digest": digest(state)})
        self._manager.save(step, metrics=dict(metrics) or None, args=ocp.args.Composite(**arrays, meta=meta))

    def steps(self) -> list[int]:
        """Steps at which there is a checkpoint, ascending."""
        return sorted(self._manager.all_steps()) if self._directory.exists() else []

    def best_step(self) -> int | None:
        """The step that is best by the metric, or None where none was evaluated."""
        return self._manager.best_step() if self._best_metric and self.steps() else None

    def restore(self, step: int, target: PyTree) -> tuple[State, dict[str, Any]]:
        """The state and the JSON saved at `step`, checked against its digest.

        Raises `DamagedCheckpoint` when it cannot be read, when it holds other arrays than the target, or when bytes
        have changed.
        """
        if step not in self.steps():
            raise UserError(f"--step={step}: there is no such checkpoint. Allowed: latest, best, {self.steps()}.")
        item, asked = "state", target
        if (self._directory / str(step) / PACKED).is_dir():
            item, asked = PACKED, {"bytes": np.zeros(memory.size(target), np.uint8)}
        arguments = ocp.args.Composite(**{item: ocp.args.StandardRestore(asked)}, meta=ocp.args.JsonRestore())
        _silence_abandoned_tasks()
        found, failed = None, None
        try:
            found = self._manager.restore(step, args=arguments)
        except Exception as error:  # Orbax and tensorstore raise a dozen kinds
            failed = error
        if not (failed is None if self._apart else hosts.everyone(failed is None)):
            reason = "another process failed" if failed is None else _first_words(failed)
            raise DamagedCheckpoint(f"checkpoint {step} cannot be read: {reason}") from failed
        state = found[item] if item == "state" else unpack(np.asarray(found[item]["bytes"]), target)
        if digest(state) != found["meta"]["digest"]:
            raise DamagedCheckpoint(f"checkpoint {step} is damaged: its arrays are not those that were saved")
        return state, found["meta"]

    def restore_newest(self, target: PyTree, repair: bool = False) -> tuple[State, dict[str, Any]] | None:
        """The newest readable checkpoint; None where there is none at all.

        Damaged ones are named in the log and skipped. With `repair` they are moved aside (`damaged.STEP`), so that
        the run can save those steps again. When nothing is readable the first error is raised: starting from zero
        in silence would be worse.
        """
        first_error: Exception | None = None
        for step in reversed(self.steps()):
            try:
                found = self.restore(step, target)
            except DamagedCheckpoint as error:
                first_error = first_error or error
                log.warning("%s; trying an older one", error)
                continue
            if repair:
                self._set_aside([other for other in self.steps() if other > step])
            return found
        if first_error is not None:
            raise UserError(f"{self._directory}: no checkpoint can be read; {first_error}") from first_error
        return None

    def go_back(self, step: int, target: PyTree) -> None:
        """Deletes what is later than `step`, a checkpoint or 0; where that one is damaged it is moved aside instead."""
        later = [other for other in self.steps() if other > step]
        try:
            if later and step:
                self.restore(step, target)
        except DamagedCheckpoint as error:
            log.warning("%s", error)
            return self._set_aside([step])
        for other in later:
            self._manager.delete(other)

    def _set_aside(self, steps: list[int]) -> None:
        for step in steps:
            names = (f"damaged.{step}" + (f".{number}" if number else "") for number in itertools.count())
            free = next(name for name in names if not (self._directory / name).exists())
            if hosts.leads():
                (self._directory / str(step)).rename(self._directory / free)
        hosts.everyone(True)  # nobody looks before it is done
        self._manager.reload()

    def wait(self) -> None:
        """Waits until everything saved is on disk."""
        if "_manager" in self.__dict__:
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for pending saves; without it the last one is lost."""
        self.wait()
        if "_manager" in self.__dict__:
            self._manager.close()


def _first_words(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    return text if len(text) <= 200 else text[:200] + " ..."


@functools.cache
def _silence_abandoned_tasks() -> None:
    """A failed restore abandons reads that are under way; as each ends, it finds its event loop gone and complains,
    from other threads and at any time later. That would bury the one line that matters, so this alone is dropped."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    unraisable, uncaught = sys.unraisablehook, sys.excepthook
    abandoned = lambda error: isinstance(error, RuntimeError) and "Event loop is closed" in str(error)  # noqa: E731
    sys.unraisablehook = lambda found: None if abandoned(found.exc_value) else unraisable(found)
    sys.excepthook = lambda kind, error, trace: None if abandoned(error) else uncaught(kind, error, trace)
