"""What one run hands to the next: a trained component with its config, its digest and its latent statistics (law 10).

Owns the file latent_statistics.json of a run. The second run copies everything it needs (config, numbers, arrays), so
it never needs the first one's directory again after its first step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from latent.errors import UserError
from latent.metrics.effective_rank import effective_rank
from latent.types import Extra, Params

FILE = "latent_statistics.json"
EXAMPLES = 20_000
"""Of the training split, that statistics are taken over."""


def resolve(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with `model.first_stage_run` beside a `model.first_stage` that names a work directory.

    It holds the first run's data, model, step, digest and statistics. Raises UserError for a run that is missing,
    unfinished, or of another data set or preprocessing.
    """
    model = dict(config["model"])
    if not model.get("first_stage") or "first_stage_run" in model:
        return dict(config)
    from latent import build
    from latent.run import load

    run = load(model["first_stage"])
    key = f"model.first_stage={model['first_stage']}"
    if run.step < run.config["train"]["steps"]:
        raise UserError(f"{key} is unfinished: step {run.step} of {run.config['train']['steps']}.")
    if run.model.encode is None or run.model.decode is None:
        raise UserError(f"{key} is a {run.config['model']['name']!r}, which cannot both encode and decode.")
    theirs, ours = ({"name": c["data"]["name"], **build.preprocessing(c["data"])} for c in (run.config, config))
    if theirs != ours:
        differing = [name for name in sorted(theirs | ours) if theirs.get(name) != ours.get(name)]
        told = ", ".join(f"data.{name}: {theirs.get(name)!r} there, {ours.get(name)!r} here" for name in differing)
        raise UserError(f"{key} was trained on other data ({told}).")
    model["first_stage_run"] = {
        "model": run.config["model"],
        "step": run.step,
        "average": run.average,
        "sha256": _digest(run),
        "statistics": statistics(run),
    }
    return {**config, "model": model}


def load_arrays(workdir: str, described: Mapping[str, Any]) -> tuple[Params, Extra]:
    """The arrays of the run that `resolve` described. Raises UserError where they are not the same any more."""
    from latent.run import load

    run = load(workdir, described["step"], described["average"])
    if _digest(run) != described["sha256"]:
        raise UserError(f"model.first_stage={workdir} has changed since this run was configured.")
    return run.state.params, run.state.extra


def statistics(run: Any) -> dict[str, Any]:
    """Mean and standard deviation of z by channel (the last axis), the KL, the effective rank and the reconstruction
    error, over the first 20,000 training examples; computed once for a checkpoint, then read from the run's file."""
    path = run.workdir / FILE
    identity = {"step": run.step, "average": run.average}
    if path.exists():
        stored = json.loads(path.read_text())
        if {name: stored.get(name) for name in identity} == identity:
            return stored
    codes = run.encode_split("train", EXAMPLES)
    z = codes["sample"].astype(np.float64)
    channels = z.reshape(-1, z.shape[-1])
    means = codes["mean"].reshape(len(z), -1).astype(np.float64)
    x = run.examples("train", 2000)["x"]
    decoded = np.asarray(run.decode(codes["mean"][: len(x)]))
    found = {
        **identity,
        "N": len(z),
        "split": "train",
        "shape": list(z.shape[1:]),
        "mean": channels.mean(axis=0).tolist(),
        "std": channels.std(axis=0).tolist(),
        "effective_rank": effective_rank(means),
        "reconstruction_mse": float(np.mean((decoded - x) ** 2)),
    }
    if "kl" in codes:
        found["kl"] = codes["kl"].reshape(-1, codes["kl"].shape[-1]).mean(axis=0, dtype=np.float64).tolist()
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(found, indent=1) + "\n")
    temporary.rename(path)
    return found


def _digest(run: Any) -> str:
    from latent.checkpoint import digest

    return digest({"params": run.state.params, "extra": run.state.extra})
