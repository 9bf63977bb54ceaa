"""The plan of a sweep: which members, under which names, checked before anything is written. The plan is data: it is
printed by --dry-run and kept in sweep.json. Knows configs and work directories; starts nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from latent import build, config, evaluate
from latent.build import Experiment
from latent.errors import UserError, unknown_name
from latent.sweeps import axes as axis

FILE = "sweep.json"
LONGEST = 180
"""Bytes of a directory's name; file systems allow 255."""


class Member(NamedTuple):
    """One run of a sweep: its directory's name, what it overrides (typed values) and how many steps it trains."""

    name: str
    overrides: dict[str, Any]
    steps: int


class Metric(NamedTuple):
    """A value of metrics.jsonl that members are compared by; `mode` is max or min."""

    name: str
    mode: str

    def best(self, values: Sequence[float]) -> float:
        """The best of some values."""
        return max(values) if self.mode == "max" else min(values)


class Plan(NamedTuple):
    """A sweep: the config, what every member overrides (`fixed`), what they differ in, and where they are written."""

    config: str
    workdir: Path
    fixed: dict[str, Any]
    axes: axis.Axes
    members: tuple[Member, ...]
    metric: Metric | None

    def directory(self, member: Member) -> Path:
        """The member's work directory."""
        return self.workdir / member.name

    def command(self, member: Member) -> list[str]:
        """The command that trains the member, or continues it."""
        words = [sys.executable, "-m", "experiments.train", f"--config={self.config}"]
        words.append(f"--workdir={self.directory(member)}")
        return words + [f"--config.{key}={text(value)}" for key, value in (self.fixed | member.overrides).items()]


def make(path: str, workdir: Path, fixed: Mapping[str, Any], axes: axis.Axes, metric: str = "", mode: str = "") -> Plan:
    """Plans a sweep of the config `path` and checks every member of it; writes nothing.

    `fixed` is what all members override; they share a W&B group, by default the name of `workdir`. `metric` is what
    they are compared by, by default the config's `checkpoint.best_metric`. Raises UserError for whatever would stop
    a member before its first step.
    """
    base = config.load(path, fixed)
    if not base.log.group:
        fixed = {**fixed, "log.group": workdir.absolute().name}
    plan = Plan(path, workdir, dict(fixed), axes, (), None)
    flat = config.flatten(base.to_dict())
    if not axes.varied():
        raise UserError("nothing is varied: give --grid, --zip, --random or --seeds.")
    for key in axes.varied():
        if key in fixed:
            raise UserError(f"{key} is varied and fixed (--config.{key}) at once.")
    found: dict[str, Member] = {}
    settings: dict[str, dict[str, Any]] = {}
    for point in axis.points(axes, flat["seed"]):
        member, chosen = make_member(plan, point)
        found.setdefault(member.name, member)  # equal draws of a small space are one run
        settings.setdefault(member.name, chosen)
    plan = plan._replace(members=tuple(found.values()))
    checker = Checker(plan)
    for member in plan.members:
        checker.check(member, settings[member.name])
    return plan._replace(metric=_metric(flat, metric, mode, checker.last))


def make_member(plan: Plan, point: Mapping[str, Any]) -> tuple[Member, dict[str, Any]]:
    """The member at a point, and its resolved config. Its values are those the config made of the words."""
    settings = config.load(plan.config, {**plan.fixed, **point}).to_dict()
    config.validate(settings)
    flat = config.flatten(settings)
    overrides = {key: flat[key] for key in sorted(point, key=lambda key: (key == "seed", key))}
    return Member(name(overrides), overrides, flat["train.steps"]), settings


class Checker:
    """Builds what a member would build. Members that differ in a seed or in the size of an hparam build the same."""

    def __init__(self, plan: Plan):
        self._plan, self._built, self._traced = plan, set(), set()
        self.last: Experiment | None = None

    def check(self, member: Member, settings: dict[str, Any]) -> None:
        """Raises UserError where `experiments.train` would refuse the member."""
        overridden = self._plan.fixed | member.overrides
        words = json.dumps({key: value for key, value in overridden.items() if not _number(value)}, sort_keys=True)
        structure = json.dumps(
            {key: value for key, value in overridden.items() if key != "seed" and not key.startswith("hparams.")},
            sort_keys=True,
        )
        # Which hparams are read is found by tracing every loss. That is slow, and follows from what the config
        # selects by name: members that differ in numbers only are traced once.
        traced = (words, *sorted(overridden))
        if structure not in self._built or traced not in self._traced:
            keys = [key for key in overridden if traced not in self._traced or not key.startswith("hparams.")]
            try:
                self.last = build.build(build.resolved(settings), keys, self.last)
                build.steps_per_dispatch(self.last, 0, False, 1)
            except UserError as error:
                raise UserError(f"member {member.name}: {error}") from error
            self._built.add(structure)
            self._traced.add(traced)
        directory = self._plan.directory(member)
        if (directory / config.FILE).exists():
            try:
                config.continued(config.read(directory), settings)
            except UserError as error:
                raise UserError(f"member {member.name}: {error}") from error


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _metric(flat: Mapping[str, Any], asked: str, mode: str, experiment: Experiment | None) -> Metric | None:
    best = flat["checkpoint.best_metric"]
    if not asked:
        return Metric(best, flat["checkpoint.best_mode"]) if best else None
    assert experiment is not None
    results = evaluate.result_names(experiment.config["eval"]["metrics"], experiment.config["eval"]["options"])
    players = [player.name for player in experiment.recipe.model.players]
    if asked not in results and asked.partition("/")[0] not in players:
        raise unknown_name("--search", asked, [*results, *(f"{player}/TERM" for player in players)])
    if mode not in ("", "max", "min"):
        raise unknown_name("--mode", mode, ("max", "min"))
    if not mode and asked != best:
        raise UserError(f"--search={asked} needs --mode=max or --mode=min.")
    return Metric(asked, mode or flat["checkpoint.best_mode"])


# Names ---------------------------------------------------------------------------------------------------------


def name(overrides: Mapping[str, Any]) -> str:
    """A directory name from a member's overrides alone, keys in order, seed last: "beta=0.5,latent_dim=8,seed=0".

    A key is written by its last part, or by as many as tell the member's keys apart. Text that does not fit into a
    file name is marked with a digest.
    """
    keys = sorted(overrides, key=lambda key: (key == "seed", key))
    whole = ",".join(f"{_short(key, keys)}={_safe(overrides[key])}" for key in keys)
    if len(whole) <= LONGEST:
        return whole
    return f"{whole[: LONGEST - 9]}~{_digest(whole)}"


def _short(key: str, keys: Sequence[str]) -> str:
    parts = key.split(".")
    for count in range(1, len(parts)):
        ending = ".".join(parts[-count:])
        if sum(other == ending or other.endswith("." + ending) for other in keys) == 1:
            return ending
    return key


def _safe(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "x".join(map(_safe, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if value is None or isinstance(value, bool | int):
        return str(value).lower()
    safe = re.sub(r"[^\w.+-]", "_", str(value))
    return safe if safe == value and safe else f"{safe}~{_digest(str(value))[:4]}"


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:8]


def text(value: Any) -> str:
    """A value as a word of the command line, from which the config reads the same value."""
    return value if isinstance(value, str) else repr(value)


# The file ------------------------------------------------------------------------------------------------------


def describe(
    plan: Plan, notes: Mapping[str, Mapping[str, Any]] | None = None, other: Sequence[Mapping[str, Any]] = ()
) -> str:
    """The plan as JSON, a line a member, with `notes` on members by name; `other` members are listed too."""
    settings = {
        "config": plan.config,
        "fixed": plan.fixed,
        "axes": {**plan.axes._asdict(), "random": {key: space._asdict() for key, space in plan.axes.random.items()}},
        "metric": plan.metric._asdict() if plan.metric else None,
    }
    members = [dict(row) for row in other]
    for member in plan.members:
        members.append({"name": member.name, "overrides": member.overrides, **(notes or {}).get(member.name, {})})
    head = json.dumps(settings, indent=1)[:-2]
    return f'{head},\n "members": [\n  ' + ",\n  ".join(map(json.dumps, members)) + "\n ]\n}"


def read(workdir: Path) -> dict[str, Any] | None:
    """What sweep.json says, or None where there is none."""
    try:
        return json.loads((workdir / FILE).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{workdir / FILE} cannot be read: {type(error).__name__}: {error}.") from error


def check_directory(plan: Plan) -> None:
    """Raises UserError where --workdir holds the sweep of another config, or a run."""
    known = read(plan.workdir)
    if known and known["config"] != plan.config:
        raise UserError(f"--workdir={plan.workdir} holds a sweep of {known['config']}, not of {plan.config}.")
    if (plan.workdir / config.FILE).exists():
        raise UserError(f"--workdir={plan.workdir} holds a run; a sweep needs a directory of its own.")


def write(plan: Plan, notes: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Writes sweep.json, whole or not at all. Members of earlier calls stay listed; those of this one come last."""
    plan.workdir.mkdir(parents=True, exist_ok=True)
    known, names = read(plan.workdir) or {"members": []}, {member.name for member in plan.members}
    earlier = [row for row in known["members"] if row["name"] not in names]
    temporary = plan.workdir / (FILE + ".tmp")
    temporary.write_text(describe(plan, notes, earlier) + "\n")
    temporary.rename(plan.workdir / FILE)
