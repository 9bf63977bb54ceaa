"""Replay bundles: everything needed to repeat the first step that was not finite (law 11)."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from latent import build, checkpoint, hosts
from latent.build import Experiment
from latent.errors import UserError
from latent.step import cycle_length, diagnose
from latent.types import Batch, State


def write(workdir: Path, experiment: Experiment, state: State) -> tuple[Path, str]:
    """Writes `failure-STEP/` (state, raw batch, config) and returns its path and the first part that is not finite.

    `state` is the one that the halted run kept: the state before the bad step, whose batch follows from (seed, step).
    Of processes that train together all look for that part, and the first one writes.
    """
    step, feed = int(state.step), experiment.feed(state, whole=True)
    inputs = jax.tree.map(lambda leaf: leaf[0], feed.inputs(step, 1))
    raw_batch = feed.fetch(feed.resident, inputs)
    state = jax.tree.map(hosts.fetch, state)
    bad = first_bad(experiment, state, raw_batch)
    bundle = workdir / f"failure-{step}"
    if not hosts.leads():
        return bundle, bad
    bundle.mkdir(exist_ok=True)
    np.savez(bundle / "batch.npz", **raw_batch)
    with ocp.StandardCheckpointer(multiprocessing_options=checkpoint.by_itself()) as saver:
        saver.save((bundle / "state").absolute(), state, force=True)
    record = {"step": step, "first_bad": bad, "config": experiment.config}
    (bundle / "failure.json").write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
    return bundle, bad


def first_bad(experiment: Experiment, state: State, raw_batch: Batch) -> str:
    """The first part of the step that is not finite, "nothing" if all are."""
    return next((name for name, good in _report(experiment, state, raw_batch).items() if not good), "nothing")


def _report(experiment: Experiment, state: State, raw_batch: Batch) -> dict[str, bool]:
    recipe, seed = experiment.recipe._replace(axis=None), np.uint32(experiment.config["seed"])
    phase = int(state.step) % cycle_length(recipe.model)
    # jit sorts dict keys; the order that matters is that of the computation, so it is taken from tracing.
    order: list[str] = []

    def ordered(state: State, raw_batch: Batch) -> list[Any]:
        found = diagnose(recipe, state, seed, raw_batch, phase)
        order.extend(found)
        return list(found.values())

    values = jax.jit(ordered)(state._replace(halted=np.int32(-1)), raw_batch)
    return dict(zip(order, map(bool, values), strict=True))


def replay(bundle: Path) -> tuple[str, dict[str, bool]]:
    """Repeats the step of a bundle: the first bad part, and whether each part was finite. Needs no work directory."""
    try:
        record = json.loads((bundle / "failure.json").read_text())
        raw_batch = dict(np.load(bundle / "batch.npz"))
        experiment = build.build(record["config"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"--replay={bundle} is not a readable bundle: {type(error).__name__}: {error}.") from error
    target = checkpoint.abstract(experiment.abstract_state(), jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    with ocp.StandardCheckpointer() as saver:
        try:
            state = saver.restore((bundle / "state").absolute(), target)
        except Exception as error:  # Orbax and tensorstore raise a dozen kinds
            raise UserError(f"--replay={bundle}: its state cannot be read ({type(error).__name__}).") from error
    report = _report(experiment, state, raw_batch)
    return next((name for name, good in report.items() if not good), "nothing"), report
