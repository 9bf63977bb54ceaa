"""Checkpoints of a run: Orbax, asynchronous, exact, with a digest that tells a damaged one from a good one.

Owns `checkpoints/` of a work directory. Knows a `State` and a small JSON beside it; knows no model and no driver.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree
from orbax.checkpoint.checkpoint_managers import preservation_policy

from latent.errors import UserError
from latent.types import State

log = logging.getLogger(__name__)
DIRECTORY = "checkpoints"


class DamagedCheckpoint(Exception):
    """A checkpoint whose arrays are not those that were saved."""


def digest(tree: PyTree) -> str:
    """SHA-256 over paths, dtypes, shapes and bytes of every leaf."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)}|{array.dtype}|{array.shape}|".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def abstract(state: PyTree, sharding: Any) -> PyTree:
    """Shapes and dtypes of a state (concrete or from `jax.eval_shape`), to be restored onto `sharding`."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state)


class Checkpoints:
    """The checkpoints of one work directory: the newest ones, and the best by an evaluation metric.

    `keep` newest are kept (at least 2: a damaged newest one needs something to fall back to) and one best, by
    `best_metric` of the metrics given to `save`, minimal or maximal by `best_mode`.
    """

    def __init__(self, workdir: Path, keep: int = 2, best_metric: str = "", best_mode: str = "min"):
        if best_mode not in ("min", "max"):
            raise UserError(f"checkpoint.best_mode={best_mode!r} is not known. Allowed: max, min.")
        if keep < 2:
            raise UserError(f"checkpoint.keep={keep} must be at least 2: a damaged newest one needs a predecessor.")
        policies: list[Any] = [preservation_policy.LatestN(keep)]
        options: dict[str, Any] = {}
        if best_metric:
            score = lambda metrics: metrics[best_metric]  # noqa: E731
            policies.append(
                preservation_policy.BestN(
                    n=1,
                    get_metric_fn=score,
                    reverse=best_mode == "min",  # Orbax: reverse=True keeps the smallest
                    keep_checkpoints_without_metrics=False,
                )
            )
            options = {"best_fn": score, "best_mode": best_mode}  # without best_fn, best_step() is the latest
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
        self._manager.save(
            step,
            metrics=dict(metrics) or None,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave({**meta, "digest": digest(state)})
            ),
        )

    def steps(self) -> list[int]:
        """Steps at which there is a checkpoint, ascending."""
        return sorted(self._manager.all_steps()) if self._directory.exists() else []

    def best_step(self) -> int | None:
        """The step that is best by the metric, or None where none was evaluated."""
        return self._manager.best_step() if self._best_metric and self.steps() else None

    def restore(self, step: int, target: PyTree) -> tuple[State, dict[str, Any]]:
        """The state and the JSON saved at `step`, checked against its digest.

        Raises whatever Orbax raises on missing files, and `DamagedCheckpoint` when bytes have changed.
        """
        if step not in self.steps():
            raise UserError(f"--step={step}: there is no such checkpoint. Allowed: latest, best, {self.steps()}.")
        found = self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target), meta=ocp.args.JsonRestore())
        )
        if digest(found["state"]) != found["meta"]["digest"]:
            raise DamagedCheckpoint(f"checkpoint {step} is damaged: its arrays are not those that were saved")
        return found["state"], found["meta"]

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
            except Exception as error:
                first_error = first_error or error
                log.warning("checkpoint %d cannot be read, trying an older one: %s", step, _first_words(error))
                continue
            if repair:
                self._set_aside([other for other in self.steps() if other > step])
            return found
        if first_error is not None:
            raise UserError(
                f"{self._directory}: no checkpoint can be read; the newest says: {_first_words(first_error)}"
            ) from first_error
        return None

    def _set_aside(self, steps: list[int]) -> None:
        for step in steps:
            (self._directory / str(step)).rename(self._directory / f"damaged.{step}")
        self._manager.reload()

    def close(self) -> None:
        """Waits for pending saves; without it the last one is lost."""
        if "_manager" in self.__dict__:
            self._manager.wait_until_finished()
            self._manager.close()


def _first_words(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    return text if len(text) <= 200 else text[:200] + " ..."
