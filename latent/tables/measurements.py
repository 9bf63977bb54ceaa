"""Numbers with passports, read from the evaluation/STEP.json of runs. Mixes no protocols (law 8)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from latent import config, evaluate
from latent.errors import UserError, unknown_name


class Measurement(NamedTuple):
    """One number of one run: its value, unit, protocol and the step it was measured at."""

    value: float
    unit: str
    protocol: dict[str, Any]
    step: int


class Run(NamedTuple):
    """A work directory: its config as {dotted key: value} and the rows of its evaluations."""

    workdir: Path
    config: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def seed(self) -> int:
        """The seed of everything in it."""
        return self.config["seed"]


class Column(NamedTuple):
    """One metric of several runs under one protocol. `missing` are runs that do not have it."""

    name: str
    unit: str
    protocol: dict[str, Any]
    values: dict[Path, Measurement]
    missing: list[Path]


def find(folder: Path) -> list[Run]:
    """Every run in a folder or below it. Raises UserError where there is none."""
    found = [path.parent for path in sorted(folder.rglob(config.FILE))]
    if not found:
        raise UserError(f"{folder} holds no run: there is no {config.FILE} in it or below it.")
    return [Run(workdir, config.flatten(config.read(workdir)), _rows(workdir)) for workdir in found]


def _rows(workdir: Path) -> list[dict[str, Any]]:
    rows = []
    for path in sorted((workdir / evaluate.DIRECTORY).glob("*.json")):
        try:
            rows += [{**row, "step": int(path.stem)} for row in json.loads(path.read_text())]
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read: {type(error).__name__}: {error}.") from error
    return [row for row in rows if isinstance(row["value"], int | float)]


def resolve(runs: Sequence[Run], metric: str, split: str) -> str:
    """The result that a word stands for: its own name, or that of the only result that begins with it ("iwae" for
    iwae_50). Raises UserError where there is none or more than one."""
    names = sorted({row["name"] for run in runs for row in run.rows if row["protocol"]["split"] == split})
    if metric in names:
        return metric
    longer = [name for name in names if name.startswith(metric + "_")]
    if len(longer) == 1:
        return longer[0]
    if longer:
        raise UserError(f"--metric={metric} could be any of {', '.join(longer)}.")
    other = sorted({row["protocol"]["split"] for run in runs for row in run.rows if row["name"].startswith(metric)})
    if other:
        raise UserError(
            f"--metric={metric} was not measured on --split={split} but on {', '.join(other)}; --evaluate measures it, "
            "if it is defined for the runs and their configs have its options."
        )
    raise unknown_name("--metric", metric, names or ["none: experiments.evaluate measures them, and --evaluate here"])


def under(runs: Sequence[Run], chosen: Mapping[str, Any]) -> list[Run]:
    """The runs with those of their rows alone whose protocol holds what is chosen."""
    return [run._replace(rows=[row for row in run.rows if _holds(row["protocol"], chosen)]) for run in runs]


def _holds(protocol: Mapping[str, Any], chosen: Mapping[str, Any]) -> bool:
    return all(str(protocol.get(key)) == str(value) for key, value in chosen.items())


def column(runs: Sequence[Run], name: str, split: str, chosen: Mapping[str, Any] | None = None) -> Column:
    """One result of every run, each at its last step, all under the one protocol that they have in common.

    `chosen` says what a protocol must hold where there is more than one, e.g. {"N": 1000}. Raises UserError with the
    differing keys where runs have no protocol in common, or several.
    """
    measured: dict[Path, dict[str, Measurement]] = {}
    for run in runs:
        for row in sorted(run.rows, key=lambda row: row["step"]):
            protocol = row["protocol"]
            if row["name"] != name or protocol["split"] != split:
                continue
            if _holds(protocol, chosen or {}):
                found = Measurement(float(row["value"]), row["unit"], protocol, row["step"])
                measured.setdefault(run.workdir, {})[json.dumps(protocol, sort_keys=True)] = found
    if not measured:
        raise UserError(f"--metric={name}: no run has it on --split={split}{_under(chosen)}.")
    common = set.intersection(*(set(found) for found in measured.values()))
    if len(common) != 1:
        every = {text for found in measured.values() for text in found}
        told = "no protocol is common to all runs" if not common else "several protocols are common to all runs"
        differing = differences([json.loads(text) for text in sorted(common or every)])
        raise UserError(f"--metric={name}: {told}; they differ in {differing}. --protocol KEY=VALUE chooses one.")
    text = common.pop()
    values = {workdir: found[text] for workdir, found in measured.items()}
    missing = [run.workdir for run in runs if run.workdir not in measured]
    first = next(iter(values.values()))
    return Column(name, first.unit, first.protocol, values, missing)


def differences(protocols: Sequence[Mapping[str, Any]]) -> str:
    """The keys in which protocols differ, with their values: "N (1000, 10000), data_sha256 (0b.., 7f..)"."""
    flat = [config.flatten(protocol) for protocol in protocols]
    found = []
    for key in sorted(set().union(*flat)):
        values = {json.dumps(protocol.get(key, "none"), sort_keys=True): None for protocol in flat}
        if len(values) > 1:
            found.append(f"{key} ({', '.join(value.strip(chr(34))[:24] for value in values)})")
    return ", ".join(found)


def _under(chosen: Mapping[str, Any] | None) -> str:
    return " with " + ", ".join(f"{key}={value}" for key, value in chosen.items()) if chosen else ""
