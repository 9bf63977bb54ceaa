"""THE training loop. It moves states, asks what is due and has it written; it knows no model, no data set, no device
count, and hardly whether it trains one run or many.

Order when several things are due at a step: evaluate, log, checkpoint. A line without its checkpoint is cut and written
again by the run that goes on; a checkpoint without its line would be a line lost. Metrics belong to the parameters
before the update they are reported with.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from latent import build, config, flops, hosts, loops, parallel, posthoc_ema, precision, provenance, workdir
from latent.build import Experiment
from latent.errors import NonFinite
from latent.logs import Timing
from latent.parallel import Driver
from latent.profiling import Profile
from latent.step import build_dispatch, cycle_length
from latent.types import State
from latent.workdir import WorkDirectory


def due(every: int, step: int, last: int) -> bool:
    """The one cadence predicate: every `every` steps (0: never) and at the last step."""
    return step == last or (every > 0 and step % every == 0)


def train(settings: Mapping[str, Any], path: Path, overridden: Iterable[str] = (), profile: bool = False) -> int:
    """Trains the run that the resolved config `settings` describes, or continues it, in the work directory `path`.

    Returns the exit code: 0 finished, 143 or 130 stopped by SIGTERM or SIGINT with a checkpoint saved. Raises
    UserError before anything is written, NonFinite when values stop being finite. Processes that have joined
    (hosts.py) train one run together, and every one of them returns or raises the same.
    """
    parallel.heed_determinism(settings)
    with contextlib.ExitStack() as held:
        with hosts.united():
            held.enter_context(provenance.claimed(path))
            hosts.require_shared(path)
            if (path / config.FILE).exists():
                settings = config.continued(config.read(path), settings)
            hosts.same(config.flatten(settings))
            settings = build.resolved(settings)
            experiment = build.build(settings, overridden)
            hosts.same({f"data.{name} (SHA-256)": digest for name, digest in experiment.dataset.digests.items()})
            driver = build.driver(settings)
        with alone(experiment, driver, path, profile) as training:
            return training.loop()


def alone(experiment: Experiment, driver: Driver, path: Path, profile: bool = False) -> Training:
    """The training of one run, from its newest checkpoint or from its beginning."""
    (run,) = workdir.directories([experiment], [path], driver.split)
    lie = driver.lay(experiment.abstract_state())
    state = run.restored(lie)
    if state is None:
        state = build.initial_state(experiment, lie)
    return Training(driver, [run], [state], profile)


class Training:
    """The runs that one process trains at once: what is compiled, what is open, where they stand.

    Mostly that is one run. Several (a population) differ in seed and hparams alone, stand at the same step and share
    every program; the driver joins their `states` and takes them apart. Their reports are as many as they are, so that
    they are written beside the next steps. `watch` is called after every report.
    """

    def __init__(
        self,
        driver: Driver,
        runs: Sequence[WorkDirectory],
        states: Sequence[State],
        profile: bool = False,
        watch: Callable[[], None] = lambda: None,
    ):
        self.driver, self.runs, self.experiment = driver, tuple(runs), runs[0].experiment
        settings = self.experiment.config
        self.recipe = self.experiment.recipe._replace(axis=driver.axis)
        self.steps, self.cadence = (
            settings["train"]["steps"],
            {p: settings[p]["every"] for p in ("log", "eval", "checkpoint")}
            | {"snapshot": posthoc_ema.cadence(settings)},
        )
        self.flops = self.peak = None
        self.profile, self.watch = profile, watch
        self._beside = ThreadPoolExecutor(1) if len(self.runs) > 1 else None
        self._reporting: Future | None = None
        for run, state in zip(self.runs, states, strict=True):
            run.feed = run.experiment.feed(state, driver.split)
        self.feed = driver.feed([run.feed for run in self.runs])
        self.state = driver.join(states)
        self._plan_dispatch()

    def __enter__(self) -> Training:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        with contextlib.ExitStack() as all_runs:  # every one is closed, whatever another one raises
            if self._beside is not None:
                self._beside.shutdown()
            for run in self.runs:
                all_runs.callback(run.close, 0 if kind is None and not run.failure else 1)

    def _plan_dispatch(self) -> None:
        """Decides how many steps a dispatch takes and whether they are rolled; compiles nothing yet."""
        self.resident = hosts.put(self.feed.resident, self.driver.replicated)
        seeds = [hosts.put(np.uint32(run.experiment.config["seed"]), self.driver.replicated) for run in self.runs]
        self.seed = self.driver.join(seeds)
        cycle = cycle_length(self.recipe.model)
        self._cycle = build.one_cycle(self.experiment)
        rolled = loops.rollable_program(self._cycle)
        start = int(self.state.step)
        sent = self.feed.step_bytes
        self.count = build.steps_per_dispatch(self.experiment, start, rolled, cycle, self.driver.crowd, sent)
        rolled = rolled and self.count > 1
        phases = 1 if rolled or self.count % cycle == 0 else cycle
        self.dispatches: list[Callable] = [
            self.driver.compile(
                build_dispatch(self.recipe, self.feed.fetch, self.count, rolled, phase, self.driver.lift)
            )
            for phase in range(phases)
        ]

    def compile_ahead(self) -> Any:
        """Compiles the first dispatch before anything is written; returns XLA's analysis of the memory it takes."""
        step = int(self.state.step)
        first = step % len(self.dispatches)
        arguments = (self.state, self.seed, self.resident, self._inputs(step))
        self.dispatches[first] = self.dispatches[first].lower(*arguments).compile()
        return self.dispatches[first].memory_analysis()

    def loop(self, stop: Stop | None = None) -> int:
        """Trains to the last step. Returns the exit code; raises NonFinite once no run is finite any more.

        `stop` is what hears signals, where that has begun already.
        """
        step = int(self.state.step)
        if step >= self.steps:
            for run in self.runs if hosts.leads() else ():
                print(f"{run.path}: finished at step {step}; nothing to do (train.steps={self.steps}).")
            return 0
        for run in self.runs:
            run.open(step, self.driver.devices)
        with (
            _hearing(stop) as stop,
            Profile(self.runs[0].path / "profile" if self.profile else None, self._say) as trace,
        ):
            inputs = self._inputs(step)
            step, inputs = self._compile(step, inputs)
            trace.begin()
            vote = hosts.Vote()
            waited, busy_since, logged = 0.0, time.perf_counter(), step
            while True:
                signalled = vote(stop.signal)
                stopping = signalled is not None
                if stopping or any(due(every, step, self.steps) for every in self.cadence.values()):
                    metrics = jax.device_get(self.metrics)
                    elapsed = time.perf_counter() - busy_since
                    timing = Timing(step - logged, elapsed, waited, self.flops, self.peak)
                    self._report(step, metrics, timing, save=stopping)
                    if due(self.cadence["log"], step, self.steps):
                        waited, elapsed, logged = 0.0, 0.0, step
                    busy_since = time.perf_counter() - elapsed  # evaluation and saving are not training time
                if step == self.steps:
                    self._reported()
                    self._say(f"finished at step {step}.")
                    return 0
                if stopping:
                    self._reported()
                    for run in self.runs:  # still inside Stop: a second signal may end it, but not unannounced
                        run.checkpoints.wait()
                    self._say(f"stopped by {signalled.name} at step {step}; run again to continue.")
                    return 128 + signalled
                self._dispatch(step, inputs)
                trace.advance(self.metrics)
                step += self.count
                before = time.perf_counter()
                inputs = self._inputs(step)
                if all(leaf.is_ready() for leaf in jax.tree.leaves(self.metrics)):
                    waited += time.perf_counter() - before  # the device was idle: at least part of this was a wait
                for run in self.runs:
                    run.advance(step)

    def _inputs(self, step: int) -> Any:
        return self.driver.place(self.feed.inputs(step, self.count)) if step < self.steps else None

    def _dispatch(self, step: int, inputs: Any) -> None:
        dispatch = self.dispatches[step % len(self.dispatches)]
        self.state, self.metrics = dispatch(self.state, self.seed, self.resident, inputs)

    def _compile(self, step: int, inputs: Any) -> tuple[int, Any]:
        """The first dispatch, awaited, so that compiling is reported and not counted as training time."""
        start = time.perf_counter()
        if not hosts.alone():  # whoever has compiled first would wait for the others inside of a collective
            for dispatch in self.dispatches:
                dispatch.lower(self.state, self.seed, self.resident, inputs).compile()
            hosts.meet()
        self._dispatch(step, inputs)
        jax.block_until_ready(self.metrics)
        devices, seconds = self.driver.devices, time.perf_counter() - start
        self._weigh()
        parameters = build.count_parameters(self.experiment.abstract_state())
        for run in self.runs:
            run.message(
                f"{parameters:,} parameters, {len(devices)} x {devices[0].device_kind}, "
                f"{self.count} steps a dispatch; the first took {seconds:.1f} s"
            )
        return step + self.count, self._inputs(step + self.count)

    def _weigh(self) -> None:
        """Counts the operations of a step, and what the devices could do of them for each run."""
        self.flops = flops.of_step(self._cycle, cycle_length(self.recipe.model))
        devices = self.driver.devices
        best = flops.peak(devices[0].device_kind, self.experiment.config["train"].get("precision", precision.DEFAULT))
        self.peak = best and best * len(devices) / len(self.runs)

    def _report(self, step: int, metrics: Any, timing: Timing, save: bool) -> None:
        """Writes what is due at this step, of every run; the next dispatch may take the state that is reported on."""
        self._reported()
        is_due = {what: due(every, step, self.steps) for what, every in self.cadence.items()}
        is_due["checkpoint"] |= save
        is_due["snapshot"] &= self.cadence["snapshot"] > 0
        # A line of metrics needs no state: many runs' would be copied to the host for nothing.
        needed = (
            is_due["eval"] or is_due["checkpoint"] or is_due["snapshot"] or np.any(np.asarray(self.state.halted) >= 0)
        )
        states = self.driver.part(self.state) if needed else [None] * len(self.runs)
        given = step, states, self.driver.part(metrics), timing, is_due
        if self._beside is None:
            self._write(*given)
        else:
            self._reporting = self._beside.submit(self._write, *given)

    def _reported(self) -> None:
        """Waits for the last report, and raises what it raised."""
        if self._reporting is not None:
            self._reporting.result()

    def _write(
        self,
        step: int,
        states: Iterable[State | None],
        metrics: Iterable[Any],
        timing: Timing,
        is_due: Mapping[str, bool],
    ) -> None:
        for run, state, values in zip(self.runs, states, metrics, strict=True):
            if run.failure or (state is not None and not run.finite(state)):
                continue
            if is_due["eval"]:
                run.evaluate(step, state)
            if is_due["log"]:
                run.log(step, values, timing)
        hosts.meet()  # one of the processes draws pictures, and no other one waits for it in the steps that follow
        # All together: a kill hardly ever leaves some runs a checkpoint ahead of the others.
        if is_due["checkpoint"] or is_due["snapshot"]:
            for run, state in zip(self.runs, getattr(states, "on_host", states), strict=True):
                if is_due["checkpoint"] and not run.failure:
                    run.save(step, state)
                if is_due["snapshot"] and not run.failure:
                    run.snapshot(state)
        if all(run.failure for run in self.runs):
            raise NonFinite(self.runs[0].failure)
        self.watch()

    def _say(self, text: str) -> None:
        for run in self.runs:
            if not run.failure:
                run.message(f"{run.path}: {text}")


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


def _hearing(stop: Stop | None) -> Any:
    return Stop() if stop is None else contextlib.nullcontext(stop)
