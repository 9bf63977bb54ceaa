"""THE training loop. It moves states, asks what is due and writes; it knows no model, no data set, no device count.

Order when several things are due at a step: evaluate, log, checkpoint. A line without its checkpoint is cut and written
again by the run that goes on; a checkpoint without its line would be a line lost. Metrics belong to the parameters
before the update they are reported with.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from latent import build, checkpoint, config, evaluate, failure, loops, provenance
from latent.build import Experiment
from latent.data.feed import Feed, resident_feed
from latent.errors import NonFinite
from latent.logs import Logs, Timing
from latent.parallel import Driver
from latent.pictures import Gallery
from latent.step import build_dispatch, cycle_length
from latent.tracking import WandbOptions
from latent.types import State


def due(every: int, step: int, last: int) -> bool:
    """The one cadence predicate: every `every` steps (0: never) and at the last step."""
    return step == last or (every > 0 and step % every == 0)


def train(settings: Mapping[str, Any], workdir: Path, overridden: Iterable[str] = (), profile: bool = False) -> int:
    """Trains the run that the resolved config `settings` describes, or continues it, in `workdir`.

    Returns the exit code: 0 finished, 143 or 130 stopped by SIGTERM or SIGINT with a checkpoint saved. Raises
    UserError before anything is written, NonFinite when values stop being finite.
    """
    if settings["train"]["deterministic"]:
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_deterministic_ops=true"
    with provenance.claimed(workdir):
        if (workdir / config.FILE).exists():
            settings = config.continued(config.read(workdir), settings)
        settings = build.resolved(settings)
        experiment = build.build(settings, overridden)
        driver = build.driver(settings)
        with Training(experiment, driver, workdir, profile) as training:
            return training.loop()


class Training:
    """One process's share of a run: what is compiled, what is open, where it stands."""

    def __init__(self, experiment: Experiment, driver: Driver, workdir: Path, profile: bool):
        settings = experiment.config
        self.experiment, self.driver, self.workdir = experiment, driver, workdir
        self.recipe = experiment.recipe._replace(axis=driver.axis)
        self.steps, self.cadence = (
            settings["train"]["steps"],
            {p: settings[p]["every"] for p in ("log", "eval", "checkpoint")},
        )
        self.profile = profile
        self.feed: Feed = resident_feed(
            experiment.dataset.splits["train"],
            settings["seed"],
            settings["train"]["batch_size"],
            settings["data"]["device_budget"],
        )
        self.evaluation_data = experiment.evaluation_data(
            settings["eval"]["split"], settings["seed"], settings["eval"]["average"], driver.split
        )
        self.gallery = Gallery(self.recipe.model, experiment.spec, self.evaluation_data, settings["log"]["images"])
        keep = settings["checkpoint"]
        self.checkpoints = checkpoint.Checkpoints(workdir, keep["keep"], keep["best_metric"], keep["best_mode"])
        self.evaluated: tuple[int, dict[str, float]] = (-1, {})
        self.state = self._first_state()
        self._plan_dispatch()

    def __enter__(self) -> Training:
        self.logs: Logs | None = None
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self.checkpoints.close()
        finally:
            if self.logs is not None:
                self.logs.close(0 if kind is None else 1)

    def _first_state(self) -> State:
        target = checkpoint.abstract(build.abstract_state(self.experiment), self.driver.replicated)
        found = self.checkpoints.restore_newest(target, repair=True)
        if found is not None:
            return found[0]
        return build.initial_state(self.experiment, self.driver.replicated)

    def _plan_dispatch(self) -> None:
        """Decides how many steps a dispatch takes and whether they are rolled; compiles nothing yet."""
        self.resident = self.driver.replicate(self.feed.resident)
        self.seed = self.driver.replicate(np.uint32(self.experiment.config["seed"]))
        cycle = cycle_length(self.recipe.model)
        one_cycle = build_dispatch(self.recipe._replace(axis=None), self.feed.fetch, cycle, rolled=False)
        shapes = jax.eval_shape(lambda *trees: trees, self.state, self.seed, self.feed.resident)
        rolled = loops.rollable(one_cycle, *shapes, self.feed.inputs(0, cycle))
        start = int(self.state.step)
        self.count = build.steps_per_dispatch(self.experiment, start, rolled, cycle)
        rolled = rolled and self.count > 1
        phases = 1 if rolled or self.count % cycle == 0 else cycle
        self.dispatches: list[Callable] = [
            self.driver.compile(build_dispatch(self.recipe, self.feed.fetch, self.count, rolled, phase))
            for phase in range(phases)
        ]

    def _open(self) -> None:
        """From here on the run writes: config and provenance first, then the logs."""
        settings = self.experiment.config
        config.write(settings, self.workdir)
        provenance.write(self.workdir, self.experiment, self.driver.devices)
        options = WandbOptions(
            mode=settings["log"]["wandb"],
            project=settings["log"]["project"],
            group=settings["log"]["group"],
            name=self.workdir.name,
        )
        self.logs = Logs(
            self.workdir,
            config=settings,
            total_steps=self.steps,
            start_step=int(self.state.step),
            batch_size=settings["train"]["batch_size"],
            wandb=options,
        )

    def loop(self) -> int:
        """Trains to the last step. Returns the exit code."""
        step = int(self.state.step)
        if step >= self.steps:
            print(f"{self.workdir}: finished at step {step}; nothing to do (train.steps={self.steps}).")
            return 0
        self._open()
        with Stop() as stop, profiling(self.workdir if self.profile else None):
            inputs = self._inputs(step)
            step, inputs = self._compile(step, inputs)
            waited, busy_since, logged = 0.0, time.perf_counter(), step
            while True:
                stopping = stop.signal is not None
                if stopping or any(due(every, step, self.steps) for every in self.cadence.values()):
                    metrics = jax.device_get(self.metrics)
                    elapsed = time.perf_counter() - busy_since
                    self._check_finite()
                    self._evaluate(step)
                    if due(self.cadence["log"], step, self.steps):
                        self.logs.train(step, flat(metrics), timing=Timing(step - logged, elapsed, waited))
                        waited, elapsed, logged = 0.0, 0.0, step
                    self._save(step, force=stopping)
                    busy_since = time.perf_counter() - elapsed  # evaluation and saving are not training time
                if step == self.steps:
                    self.logs.message(f"{self.workdir}: finished at step {step}.")
                    return 0
                if stopping:
                    self.checkpoints.wait()  # still inside Stop: a second signal may end it, but not unannounced
                    self.logs.message(
                        f"{self.workdir}: stopped by {stop.signal.name} at step {step}; run again to continue."
                    )
                    return 128 + stop.signal
                self._dispatch(step, inputs)
                step += self.count
                before = time.perf_counter()
                inputs = self._inputs(step)
                if all(leaf.is_ready() for leaf in jax.tree.leaves(self.metrics)):
                    waited += time.perf_counter() - before  # the device was idle: at least part of this was a wait
                self.logs.advance(step)

    def _inputs(self, step: int) -> Any:
        return self.driver.place(self.feed.inputs(step, self.count)) if step < self.steps else None

    def _dispatch(self, step: int, inputs: Any) -> None:
        dispatch = self.dispatches[step % len(self.dispatches)]
        self.state, self.metrics = dispatch(self.state, self.seed, self.resident, inputs)

    def _compile(self, step: int, inputs: Any) -> tuple[int, Any]:
        """The first dispatch, awaited, so that compiling is reported and not counted as training time."""
        start = time.perf_counter()
        self._dispatch(step, inputs)
        jax.block_until_ready(self.metrics)
        devices = self.driver.devices
        self.logs.message(
            f"{build.count_parameters(self.state):,} parameters, {len(devices)} x {devices[0].device_kind}, "
            f"{self.count} steps a dispatch; the first took {time.perf_counter() - start:.1f} s"
        )
        return step + self.count, self._inputs(step + self.count)

    def _check_finite(self) -> None:
        if int(self.state.halted) < 0:
            return
        bundle, bad = failure.write(self.workdir, self.experiment, self.feed, self.state)
        raise NonFinite(f"step {int(self.state.step)}: {bad} is not finite. Replay: --replay={bundle}")

    def _evaluate(self, step: int) -> None:
        if not due(self.cadence["eval"], step, self.steps):
            return
        settings = self.experiment.config["eval"]
        state = evaluate.view(self.state, settings["average"])
        results = evaluate.run(settings["metrics"], state, self.evaluation_data, settings["options"])
        self.evaluated = (step, evaluate.best_of(results))
        if results:
            evaluate.record(self.workdir, step, results, provenance.of_result(self.experiment, step))
            self.logs.evaluation(step, settings["split"], self.evaluated[1])
        self.logs.pictures(step, lambda: self.gallery.draw(state))

    def _save(self, step: int, force: bool) -> None:
        if force or due(self.cadence["checkpoint"], step, self.steps):
            metrics = self.evaluated[1] if self.evaluated[0] == step else {}
            self.checkpoints.save(self.state, {"step": step}, metrics)


def flat(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """{player: {term: value}} -> {"player/term": value}; a player that did not move is left out."""
    return {
        f"{player}/{term}": float(value)
        for player, terms in metrics.items()
        if terms["moved"] > 0
        for term, value in terms.items()
        if term != "moved"
    }


class Stop:
    """Remembers SIGTERM and SIGINT, so that the loop stops between dispatches; a second one stops at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: Any) -> None:
        self.signal = signal.Signals(number)
        signal.signal(number, self._previous[number])


def profiling(directory: Path | None) -> Any:
    """A JAX trace of what runs inside, under `directory`/profile; None: nothing."""
    return contextlib.nullcontext() if directory is None else jax.profiler.trace(str(directory / "profile"))
