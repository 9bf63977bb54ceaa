"""What a config's docstring promises, and whether a run keeps it.

A docstring states results on a line "Expected: name value +- spread, name value +- spread", names as
`experiments.evaluate` prints them, on the test split; the line may go on below. Commands `python -m
experiments.evaluate ...` in the docstring say with which metrics and options, besides those of the config.
"""

from __future__ import annotations

import inspect
import re
import runpy
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from latent import config, evaluate
from latent.errors import UserError, unknown_name
from latent.metrics.passport import Result

NUMBER = r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
ITEM = re.compile(rf"(?P<name>[A-Za-z]\S*) (?P<value>{NUMBER}) \+- (?P<spread>{NUMBER})(?: (?P<note>.*))?")


class Expectation(NamedTuple):
    """A stated result: what `experiments.evaluate` calls it, its value, and how far a run may be from it."""

    name: str
    value: float
    spread: float


class Verdict(NamedTuple):
    """An expectation beside what was measured (None: the run has no such result)."""

    expectation: Expectation
    measured: float | None

    @property
    def holds(self) -> bool:
        """Whether the measured value lies within the spread."""
        stated = self.expectation
        # Both are decimal numbers: 0.3 - 0.2 must not be more than 0.1.
        return self.measured is not None and abs(self.measured - stated.value) <= stated.spread * (1 + 1e-9)


def docstring(path: str) -> str:
    """The docstring of `configs/file.py:variant`, of the default variant where none is named."""
    file, _, variant = path.partition(":")
    module = runpy.run_path(file)
    if "VARIANTS" not in module:
        return inspect.getdoc(module["get_config"]) or ""
    variant = variant or inspect.signature(module["get_config"]).parameters["variant"].default
    return inspect.getdoc(module["VARIANTS"][variant]) or ""


def parse(text: str) -> list[Expectation]:
    """The expectations of a docstring; none where it states none.

    Items without "+-" are words for people. Raises UserError for one with "+-" that is not of the form.
    """
    found = []
    for item in _items(text):
        if "+-" not in item:
            continue
        matched = ITEM.fullmatch(item)
        if matched is None:
            raise UserError(f"Expected: {item!r} is not of the form 'name value +- spread'.")
        found.append(Expectation(matched["name"], float(matched["value"]), float(matched["spread"])))
    return found


def _items(text: str) -> list[str]:
    """What stands between commas and semicolons after "Expected:", up to the next label, command or empty line."""
    matched = re.search(r"^\s*Expected:(.*?)(?=^\s*[A-Z][\w ,]*:|^\s*python -m|^\s*$|\Z)", text, re.M | re.S)
    if matched is None:
        return []
    sentence = re.split(r"\. [A-Z][\w ]*:", " ".join(matched[1].split()))[0]
    outside = re.sub(r"\([^)]*\)", lambda note: note[0].replace(",", "\0").replace(";", "\0"), sentence)
    items = [item.replace("\0", ",").strip().rstrip(".") for item in re.split(r"[,;]|\. ", outside)]
    return [item for item in items if item]


def evaluations(text: str) -> list[tuple[tuple[str, ...], str]]:
    """(metrics, --options) of every experiments.evaluate command in a docstring."""
    found = []
    for line in re.findall(r"^\s*python -m experiments\.evaluate (.*)$", text, re.M):
        flags = dict(word.lstrip("-").split("=", 1) for word in shlex.split(line) if "=" in word)
        found.append((tuple(filter(None, flags.get("metrics", "").split(","))), flags.get("options", "")))
    return found


def possible_names(settings: Mapping[str, Any], text: str, options: Callable[[str], Mapping[str, Any]]) -> list[str]:
    """Results that the config's own metrics give, and the docstring's commands. `options` parses an --options flag."""
    own = settings["eval"]
    names = evaluate.result_names(own["metrics"], own["options"])
    for metrics, words in evaluations(text):
        changed = options(words)
        merged = {
            name: {**own["options"].get(name, {}), **changed.get(name, {})} for name in {*own["options"], *changed}
        }
        names += evaluate.result_names(metrics or own["metrics"], merged)
    return list(dict.fromkeys(names))


def compare(expected: Sequence[Expectation], results: Sequence[Result]) -> list[Verdict]:
    """Each expectation beside the result of its name. Where two evaluations gave it, the later one counts."""
    measured: Mapping[str, Any] = {result.name: result.value for result in results}
    return [Verdict(expectation, measured.get(expectation.name)) for expectation in expected]


def report(verdicts: Sequence[Verdict]) -> str:
    """The verdicts as an aligned table."""
    rows = [("name", "stated", "spread", "measured", "")]
    for verdict in verdicts:
        name, value, spread = verdict.expectation
        measured = "missing" if verdict.measured is None else f"{verdict.measured:.6g}"
        rows.append((name, f"{value:g}", f"{spread:g}", measured, "ok" if verdict.holds else "off"))
    widths = [max(len(row[place]) for row in rows) for place in range(5)]
    lines = ("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def check(path: str, workdir: Path, options: Callable[[str], Mapping[str, Any]]) -> tuple[int, list[Verdict]]:
    """Trains the config in `workdir`, or continues it, evaluates it on test, and compares with its docstring.

    `options` parses the text of an --options flag. Returns the training's exit code (nothing is compared unless it is
    0) and the verdicts. Raises UserError, before training, where the docstring states nothing.
    """
    from latent import train
    from latent.run import load

    settings, text = config.load(path).to_dict(), docstring(path)
    expected = parse(text)
    if not expected:
        raise UserError(f'{path}: its docstring has no line "Expected: name value +- spread".')
    names = possible_names(settings, text, options)
    for expectation in expected:
        if expectation.name not in names:
            raise unknown_name(f"{path}: Expected", expectation.name, names)
    code = train.train(settings, workdir)
    if code:
        return code, []
    run = load(workdir)
    results = run.evaluate()
    for metrics, words in evaluations(text):
        results += run.evaluate(metrics, options=options(words))
    return 0, compare(expected, results)


def default_workdir(path: str) -> Path:
    """runs/check/FILE_VARIANT."""
    file, _, variant = path.partition(":")
    return Path("runs", "check", "_".join(filter(None, (Path(file).stem, variant))))
