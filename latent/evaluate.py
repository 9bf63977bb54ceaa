"""Evaluation: runs metrics on a split and keeps the numbers with their passports.

One code path for the training loop and for checkpoints (law 7). How a split goes through a model is in
evaluation_data.py.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latent import config
from latent.data import dataset
from latent.errors import UserError, unknown_name
from latent.evaluation_data import FACTORS, WITHOUT, EvaluationData
from latent.metrics import passport
from latent.types import DataSpec, State

DIRECTORY = "evaluation"
PACKAGE = "latent.metrics"


def view(state: State, average: str) -> State:
    """The state with the weights of an average in place of the raw ones; "" gives the raw ones."""
    if not average:
        return state
    if average not in state.ema:
        raise unknown_name("eval.average", average, ["", *state.ema])
    ema = state.ema[average]
    return state._replace(params={**state.params, **ema["params"]}, extra={**state.extra, **ema["extra"]})


def result_names(names: Sequence[str], options: Mapping[str, Any]) -> list[str]:
    """Names of the results that metrics will give. Raises UserError for a metric that no module has, or whose options
    are missing or make no sense."""
    found: list[str] = []
    for name in names:
        of_options = config.select(PACKAGE, name, "names", "metric")
        try:
            found += of_options(_options(name, options))
        except UserError as error:
            if name in options:
                raise
            told = f"{name}: this run's config has no options for it; give them by --options={name}.OPTION=VALUE,..."
            raise UserError(f"{told} ({error})") from error
    return found


def missing(name: str, state: State, data: EvaluationData) -> str:
    """Why the family or the data cannot give a metric; empty where they can."""
    lacking = [need for need in sorted(config.select(PACKAGE, name, "needs", "metric")) if not data.has(need, state)]
    of_data = [WITHOUT[need].format(**data.protocol) for need in lacking if need in WITHOUT]
    return of_data[0] if of_data else f"this family has no {', '.join(lacking)}" if lacking else ""


def _undefined(name: str, reason: str, options: Mapping[str, Any]) -> list[passport.Result]:
    """Rows with a reason: one for each result, or for the metric where the config has no options to name them by."""
    try:
        names = result_names((name,), options)
    except UserError:
        names = [name]
    return [passport.undefined(result, reason) for result in names]


def require_factors(names: Sequence[str], key: str, spec: DataSpec) -> None:
    """Raises UserError naming the first metric that needs factors of variation where the data set has none."""
    for name in names:
        if not spec.factors and FACTORS in config.select(PACKAGE, name, "needs", "metric"):
            having = ", ".join(known for known, source in dataset.sources().items() if source.factors)
            raise UserError(
                f"{key}: {name} needs known factors of variation, and data.name={spec.name!r} has none. "
                f"Sets that have them: {having}."
            )


def _options(name: str, options: Mapping[str, Any]) -> config.Section:
    return config.Section(options.get(name, {}), f"eval.options.{name}.")


def run(names: Sequence[str], state: State, data: EvaluationData, options: Mapping[str, Any]) -> list[passport.Result]:
    """Runs metrics in order. What the family cannot give becomes a row with its reason."""
    results = []
    for name in names:
        if reason := missing(name, state, data):
            results += _undefined(name, reason, options)
            continue
        module = importlib.import_module(f"{PACKAGE}.{name}")
        try:
            results += module.run(data.model, state, data, _options(name, options))
        except passport.Undefined as reason:
            results += _undefined(name, str(reason), options)
    data.forget()
    return results


def record(workdir: Path, step: int, results: Sequence[passport.Result], provenance: Mapping[str, Any]) -> Path:
    """Adds results to evaluation/STEP.json: an equal name and protocol is replaced, all others stay."""
    path = workdir / DIRECTORY / f"{step}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = json.loads(path.read_text()) if path.exists() else []
    new = passport.valid([{**result._asdict(), "provenance": dict(provenance)} for result in results])
    identity = lambda row: (row["name"], json.dumps(row["protocol"], sort_keys=True))  # noqa: E731
    replaced = {identity(row) for row in new}
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    kept = [row for row in rows if identity(row) not in replaced]
    temporary.write_text(json.dumps(kept + new, indent=1, allow_nan=False) + "\n")
    temporary.rename(path)
    return path


def table(results: Sequence[passport.Result]) -> str:
    """The results as aligned text."""
    rows = [("metric", "value", "std. error", "unit", "N", "split")]
    for result in results:
        if result.value is None:
            rows.append((result.name, f"not defined: {result.reason}", "", "", "", ""))
            continue
        error = "" if result.standard_error is None else f"{result.standard_error:.4g}"
        protocol = result.protocol
        rows.append((result.name, f"{result.value:.6g}", error, result.unit, str(protocol["N"]), protocol["split"]))
    widths = [max(len(row[column]) for row in rows if row[2] or column != 1) for column in range(6)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def best_of(results: Sequence[passport.Result]) -> dict[str, float]:
    """{name: value} of the defined results: what a checkpoint is judged by and what the log prints."""
    return {result.name: result.value for result in results if result.value is not None}
