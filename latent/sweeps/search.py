"""A search instead of a plan: optuna's TPE proposes members, a median rule stops the hopeless ones early.

The study is rebuilt at every start from sweep.json and the members' own files, so that nothing else must be kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latent.errors import UserError
from latent.sweeps import axes as axis
from latent.sweeps import plan as plans
from latent.sweeps import progress
from latent.sweeps.launchers import local
from latent.sweeps.launchers.options import Options
from latent.sweeps.plan import Checker, Member, Plan

STARTUP = 5
"""Trials before TPE learns and before anything is pruned."""

ATTEMPTS = 100
"""Proposals in a row that may repeat what was tried."""


def require(axes: axis.Axes) -> None:
    """Raises UserError where optuna is missing, or where the axes are not a space to search."""
    if axes.grid or axes.zips or axes.seeds or not axes.random:
        raise UserError("--search takes its space from --random and its length from --draws, and nothing else.")
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise UserError('--search needs optuna, which is not installed: pip install -e ".[sweeps]".') from error


def run(plan: Plan, options: Options) -> int:
    """Runs `plan.axes.draws` trials in all, those of earlier calls in the same space included. Returns the launcher's
    exit code."""
    search = Search(plan)
    source = local.Source(search.take, search.watch, search.ended)
    return local.run(search.plan, plan.axes.draws, search.done, source, options)


class Search:
    """An optuna study over the members of a sweep; one trial is one member. Beside its overrides sweep.json keeps a
    member's `draw`, the words that the study knows it by, and its `outcome` where that was to be pruned."""

    def __init__(self, plan: Plan):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._states, self._create_trial = optuna.trial.TrialState, optuna.trial.create_trial
        self._spaces = plan.axes.random
        self._distributions = {key: _distribution(optuna, space) for key, space in self._spaces.items()}
        rows = (plans.read(plan.workdir) or {"members": []})["members"]
        self._notes = {row["name"]: {key: row[key] for key in ("draw", "outcome") if key in row} for row in rows}
        known = [row for row in rows if self._could_draw(row.get("draw", {}))]
        self.plan = plan._replace(members=tuple(plans.make_member(plan, row["draw"])[0] for row in known))
        self.done: list[Member] = []
        self._checker = Checker(self.plan)
        self._trials: dict[str, Any] = {}
        self._reported: dict[str, int] = {}
        self._unfinished: list[Member] = []
        self._study = optuna.create_study(
            direction="maximize" if plan.metric.mode == "max" else "minimize",
            # The number of known trials is in the seed: the same proposals after every restart would only repeat them.
            sampler=optuna.samplers.TPESampler(
                seed=plan.axes.draw_seed + len(known), n_startup_trials=STARTUP, constant_liar=True
            ),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP),
        )
        for member in self.plan.members:
            self._remember(member)

    def take(self) -> Member | None:
        """A member that an earlier call left unfinished, else a new one, else None: all trials are given out."""
        if self._unfinished:
            member = self._unfinished.pop(0)
            self._study.enqueue_trial(self._notes[member.name]["draw"])
            self._trials[member.name] = self._study.ask(self._distributions)
            return member
        if len(self.plan.members) >= self.plan.axes.draws:
            return None
        for _ in range(ATTEMPTS):
            trial = self._study.ask(self._distributions)
            point = {key: _rounded(self._spaces[key], value) for key, value in trial.params.items()}
            member, settings = plans.make_member(self.plan, point)
            if member.name not in {other.name for other in self.plan.members}:
                break
            self._study.tell(trial, state=self._states.FAIL)  # proposed before
        else:
            raise UserError("--search proposes nothing new: the space is smaller than --draws.")
        self._checker.check(member, settings)
        self._trials[member.name] = trial
        self._notes[member.name] = {"draw": point}
        self.plan = self.plan._replace(members=(*self.plan.members, member))
        plans.write(self.plan, self._notes)
        return member

    def watch(self, member: Member) -> bool:
        """Reports new values of a member that runs; True where the pruner gives it up."""
        trial, found = self._trials[member.name], progress.read(self.plan.directory(member), self.plan.metric)
        new = [(step, value) for step, value in found.curve if step > self._reported.get(member.name, -1)]
        for step, value in new:
            trial.report(value, step)
            self._reported[member.name] = step
        return bool(new and new[-1][0] < member.steps and trial.should_prune())

    def ended(self, member: Member, outcome: str) -> None:
        """Tells the study how a trial went. What was stopped or failed is tried again by the next call."""
        trial, curve = self._trials.pop(member.name), self._curve(member)
        if outcome == "finished":
            if not curve:
                raise UserError(
                    f"--search={self.plan.metric.name}: {member.name} is finished and logged no such value."
                )
            self._study.tell(trial, curve[-1][1])
        else:
            self._study.tell(trial, state=self._states.PRUNED if outcome == "pruned" else self._states.FAIL)
        if outcome == "pruned":
            self._notes[member.name]["outcome"] = "pruned"
            plans.write(self.plan, self._notes)

    def _remember(self, member: Member) -> None:
        """A trial of an earlier call: told to the study where it came to an end, else run again."""
        note, curve, finished = self._notes[member.name], self._curve(member), progress.finished(self.plan, member)
        if not (finished or "outcome" in note):
            if not progress.in_use(self.plan.directory(member)):
                self._unfinished.append(member)
            return
        self.done.append(member)
        if curve:
            self._study.add_trial(
                self._create_trial(
                    params=note["draw"],
                    distributions=self._distributions,
                    value=curve[-1][1],
                    state=self._states.COMPLETE if finished else self._states.PRUNED,
                    intermediate_values=dict(curve),
                )
            )

    def _could_draw(self, draw: Mapping[str, Any]) -> bool:
        """Whether a point is in the space: optuna refuses what an earlier call drew from a wider one, or another."""
        if draw.keys() != self._spaces.keys():
            return False
        return all(_within(space, draw[key]) for key, space in self._spaces.items())

    def _curve(self, member: Member) -> tuple[tuple[int, float], ...]:
        return progress.read(self.plan.directory(member), self.plan.metric).curve


def _within(space: axis.Space, value: Any) -> bool:
    if space.kind == "choice":
        return value in space.choices
    # Choices are text, whatever they say; of a real space optuna also takes integers.
    numbers = (int,) if space.kind in ("int", "logint") else (int, float)
    return isinstance(value, numbers) and space.low <= value <= space.high


def _distribution(optuna: Any, space: axis.Space) -> Any:
    kinds = optuna.distributions
    if space.kind == "choice":
        return kinds.CategoricalDistribution(space.choices)
    if space.kind in ("int", "logint"):
        return kinds.IntDistribution(int(space.low), int(space.high), log=space.kind == "logint")
    return kinds.FloatDistribution(space.low, space.high, log=space.kind == "log")


def _rounded(space: axis.Space, value: Any) -> Any:
    return space.rounded(value) if isinstance(value, float) else value
