"""Members that differ in seed and hparams alone as one XLA program, in this process: a population.

What differs otherwise makes populations of its own, one after another, and so does what does not fit into memory.
Every member leaves the work directory that `experiments.train` would leave, and either goes on where the other stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from latent import build, config, memory, parallel, provenance, workdir
from latent.build import Experiment
from latent.errors import NonFinite, UserError
from latent.sweeps import progress
from latent.sweeps.board import Board
from latent.sweeps.launchers.local import cores
from latent.sweeps.launchers.options import Options
from latent.sweeps.plan import Member, Plan, make_member, write
from latent.train import Stop, Training

OWN = ("seed", "hparams")
"""What members of one population may differ in."""


def set_up() -> None:
    """Before JAX starts: the members train in this process, on a device for every core where there is no accelerator.
    Programs of many small operations leave most cores idle; members on devices of their own do not."""
    if "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", len(cores()))


class Population(NamedTuple):
    """Members, and their experiments, which are siblings: they share what is built and what is compiled."""

    members: list[Member]
    siblings: list[Experiment]

    def only(self, names: Container[str]) -> Population:
        """Those of the members that have these names."""
        chosen = [number for number, member in enumerate(self.members) if member.name in names]
        return Population([self.members[number] for number in chosen], [self.siblings[number] for number in chosen])


def launch(plan: Plan, members: Sequence[Member], options: Options) -> int:
    """Trains the members. Returns 0 when all of the plan are finished, 1 when some failed, 143 or 130 when stopped.

    `options.jobs` is how many members a program may hold; 0: as many as fit into memory.
    """
    populations = group(plan, members)
    for population in populations:
        print(f"{plan.workdir}: a population of {len(population.members)}", file=sys.stderr)
    if options.dry_run:
        return 0
    write(plan)
    return run(plan, populations, options)


def run(plan: Plan, populations: Sequence[Population], options: Options) -> int:
    """Trains populations of a plan, one after another. Returns as `launch` does; writes no plan."""
    done = [member for member in plan.members if progress.finished(plan, member)]
    board = Board(plan, len(plan.members), len(done), sys.stdout)
    for member in done:
        board.look(member)
    try:
        with Stop() as stop:
            failures = sum([train(plan, board, stop, population, options.jobs) for population in populations])
        return 128 + stop.signal if stop.signal else int(failures > 0)
    finally:
        board.close()


def group(plan: Plan, members: Sequence[Member], overridden: Sequence[str] = ()) -> list[Population]:
    """The populations that members make: one for every setting of what is neither seed nor hparams. `overridden` keys
    must be read by each.

    Raises UserError for an optimiser that sets its own rate: what it sets is no scalar of the state.
    """
    resolved: dict[str, dict[str, Any]] = {}
    found: dict[str, tuple[list[Member], list[dict[str, Any]]]] = {}
    for member in members:
        settings, directory = make_member(plan, member.overrides)[1], plan.directory(member)
        if (directory / config.FILE).exists():
            settings = config.continued(config.read(directory), settings)
        parallel.heed_determinism(settings)
        # What a first start decides (it loads a first stage) is the same for all that share the rest.
        if _shared(settings) not in resolved:
            resolved[_shared(settings)] = build.resolved(settings)
        settings = resolved[_shared(settings)] | {key: settings[key] for key in OWN}
        known, configs = found.setdefault(_shared(settings), ([], []))
        known.append(member)
        configs.append(settings)
    populations: list[Population] = []
    for known, configs in found.values():
        neighbour = populations[-1].siblings[0] if populations else None
        experiment = build.build(configs[0], overridden, neighbour)
        _check(experiment)
        populations.append(Population(known, [build.sibling(experiment, each) for each in configs]))
    return populations


def _shared(settings: Mapping[str, Any]) -> str:
    return json.dumps({key: value for key, value in settings.items() if key not in OWN}, sort_keys=True)


def _check(experiment: Experiment) -> None:
    for player, optimizer in experiment.recipe.optimizers.items():
        if optimizer.owns_rate:
            name = experiment.config["optimizer"][player]["name"]
            raise UserError(
                f"optimizer.{player}.name={name!r} sets its own rate, which members of a population cannot differ in; "
                "--launcher=local trains it."
            )


def train(plan: Plan, board: Board, stop: Stop, population: Population, jobs: int) -> int:
    """Trains a population in as few parts as fit, one after another. Returns how many members failed."""
    waiting, failures = [member.name for member in population.members], 0
    most = min(jobs or len(waiting), _at_most(population.siblings[0]))
    while waiting and stop.signal is None:
        step, level = _level(plan, waiting)
        part = level[:most]
        with Crew(plan, board, population.only(part)) as crew:
            if crew.ready(step):
                fits = crew.fitting()
                if fits < len(part):
                    most = fits
                else:
                    crew.train(stop)
        failures += crew.failures
        waiting = [name for name in waiting if name not in crew.ended]
    return failures


def _level(plan: Plan, waiting: Sequence[str]) -> tuple[int, list[str]]:
    """A step that members can start from together, and these members; those furthest behind come first.

    A kill while checkpoints are written leaves some members one ahead of the others. These go back: the same members
    in one program compute the same to the last bit, others the same to rounding.
    """
    started = [name for name in waiting if (plan.workdir / name / config.FILE).exists()]
    last_two = {name: [0, *progress.checkpoints(plan.workdir / name)][-2:] for name in started or waiting}
    step = min(max(steps) for steps in last_two.values())
    return step, [name for name, steps in last_two.items() if step in steps]


def _at_most(experiment: Experiment) -> int:
    """How many members might fit: where nothing but their states is counted."""
    devices = parallel.local(experiment.config["parallel"]["devices"])
    return max(1, memory.budget(devices) * len(devices) // memory.size(experiment.abstract_state()))


class Crew:
    """Members that train together, from claiming their directories to telling the board how they ended."""

    def __init__(self, plan: Plan, board: Board, population: Population):
        self._plan, self._board, self._population = plan, board, population
        self._held, self._outputs = contextlib.ExitStack(), {}
        self._idle: list[workdir.WorkDirectory] = []
        self.ended: set[str] = set()
        self.failures = 0

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: Any) -> None:
        for run in self._idle:
            run.close(0)
        self._held.close()

    def ready(self, step: int) -> bool:
        """Takes the members to a step and compiles. False where some turn out to stand elsewhere, because a damaged
        checkpoint was set aside, or cannot start: the others are to be looked at again."""
        members, siblings = self._population
        experiment = siblings[0]
        for member in members:
            self._attempt(member, lambda member=member: self._claim(member))
        if self.ended:
            return False
        self._budget = memory.budget(parallel.local(experiment.config["parallel"]["devices"]))
        driver = parallel.population(
            experiment.config["parallel"]["devices"],
            len(members),
            experiment.abstract_state(),
            experiment.recipe.model.loads,
            build.rollable(experiment),
        )
        paths = [self._plan.directory(member) for member in members]
        self._runs = workdir.directories(siblings, paths, driver.split, list(self._outputs.values()))
        self._idle = self._runs
        states = [
            self._attempt(member, lambda run=run: run.restored(driver.replicated, step))
            for member, run in zip(members, self._runs, strict=True)
        ]
        if self.ended or len({None if state is None else int(state.step) for state in states}) > 1:
            return False
        if states[0] is None:
            states = build.initial_states(siblings, driver.replicated)
        self._training = Training(driver, self._runs, states, watch=self._watch)
        self._analysis = self._training.compile_ahead()
        return True

    def fitting(self) -> int:
        """How many members fit by XLA's own estimate; at least one is tried."""
        count, needed = len(self._runs), memory.needed(self._analysis)
        if needed <= self._budget or count == 1:
            return count
        driver, common = self._training.driver, memory.size(self._training.resident)
        each = (needed - common) / driver.crowd
        fits = min(count - 1, max(1, int((self._budget - common) / each) * len(driver.devices)))
        gigabytes = f"{needed / 2**30:.3g} GiB a device of {self._budget / 2**30:.3g} free"
        self._board.message(f"{count} members would take {gigabytes}: {fits} at a time")
        return fits

    def train(self, stop: Stop) -> None:
        """Trains, and reports how every member ended."""
        self._idle = []  # the training closes them
        for member in self._population.members:
            self._board.started(member)
        outcome, reason = "failed", ""
        try:
            with self._training:
                outcome = "stopped" if self._training.loop(stop) else "finished"
        except NonFinite:
            pass  # that was the last one; `_watch` knows each by itself
        except Exception as error:
            # As with processes, it stops nobody else. The whole story is in the members' outputs.
            reason = f"{type(error).__name__}: {error}"
            for output in self._outputs.values():
                traceback.print_exc(file=output)
        self._watch()
        for member in self._population.members:
            if member.name not in self.ended:
                self._end(member, outcome, reason)

    def _claim(self, member: Member) -> None:
        directory = self._plan.directory(member)
        self._held.enter_context(provenance.claimed(directory))
        output = open(directory / progress.OUTPUT, "a")  # noqa: SIM115 - as long as the claim
        self._outputs[member.name] = self._held.enter_context(output)

    def _attempt(self, member: Member, call: Callable[[], Any]) -> Any:
        """The result of a call; where the user must change something about a member, that one has failed."""
        try:
            return call()
        except UserError as error:
            self._board.started(member)
            self._end(member, "failed", f"exit 2: {error}")
            return None

    def _watch(self) -> None:
        """Tells of members that were given up since the last report, and shows the others."""
        running = []
        for member, run in zip(self._population.members, self._runs, strict=True):
            if member.name in self.ended:
                continue
            if run.failure:
                self._end(member, "failed", f"exit 3: {run.failure}")
            else:
                running.append(member)
        self._board.refresh(running)

    def _end(self, member: Member, outcome: str, reason: str = "") -> None:
        self.ended.add(member.name)
        self.failures += outcome == "failed"
        if reason and member.name in self._outputs:
            print(f"error: {reason}", file=self._outputs[member.name], flush=True)
        self._board.ended(member, outcome, reason)
