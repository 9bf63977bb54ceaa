"""What one run hands to the next: a trained component with its config and digest, and of a first stage the statistics
of its latents (law 10).

Owns the file latent_statistics.json of a run. The second run copies everything it needs (config, numbers, arrays), so
it never needs the first one's directory again after its first step.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from latent import hosts
from latent.errors import UserError
from latent.metrics.effective_rank import effective_rank
from latent.types import Extra, Params

FIRST_STAGE = "first_stage"
COMPONENTS = (FIRST_STAGE, "weak", "classifier")
"""Components of a model (`Model.loads`) that a config key `model.NAME` takes from the work directory it names."""

FILE = "latent_statistics.json"
EXAMPLES = 20_000
"""Of the training split, that statistics are taken over."""


def resolve(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with `model.NAME_run` beside every `model.NAME` of `COMPONENTS` that names a work directory.

    It holds that run's model, shape of an example, step, digest and, of an autoencoder, its statistics. Raises
    UserError for a run that is missing, unfinished, or of another data set or preprocessing.
    """
    model = dict(config["model"])
    for name in COMPONENTS:
        if model.get(name) and f"{name}_run" not in model:
            model[f"{name}_run"] = _described(name, model[name], config)
    return {**config, "model": model}


def _described(name: str, workdir: str, config: Mapping[str, Any]) -> dict[str, Any]:
    from latent import build
    from latent.run import load

    key = f"model.{name}={workdir}"
    try:
        run = load(workdir)
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
    if run.step < run.config["train"]["steps"]:
        raise UserError(f"{key} is unfinished: step {run.step} of {run.config['train']['steps']}.")
    theirs, ours = (
        {"name": c["data"]["name"], "folder": c["data"].get("folder"), **build.preprocessing(c["data"])}
        for c in (run.config, config)
    )
    # A crop shows in the shape of an example, which is compared where both are known; padded ones are augmentation.
    differing = [each for each in sorted(theirs | ours) if each != "crop" and theirs.get(each) != ours.get(each)]
    if differing:
        told = ", ".join(f"data.{each}: {theirs.get(each)!r} there, {ours.get(each)!r} here" for each in differing)
        raise UserError(f"{key} was trained on other data ({told}).")
    found = {
        "model": run.config["model"],
        "shape": list(run.spec.shape),
        "step": run.step,
        "average": run.average,
        "sha256": _digest(run),
    }
    if name == FIRST_STAGE:
        if run.model.encode is None or run.model.decode is None:
            raise UserError(f"{key} is a {run.config['model']['name']!r}, which cannot both encode and decode.")
        found["statistics"] = statistics(run)
    return found


def check_shape(name: str, described: Any, shape: tuple[int, ...]) -> None:
    """Raises UserError where the run behind `model.NAME` saw examples of another shape."""
    if tuple(described.shape) != tuple(shape):
        raise UserError(
            f"model.{name}: that run sees examples of {tuple(described.shape)}, this one of {tuple(shape)}."
        )


def load_arrays(name: str, workdir: str, described: Mapping[str, Any]) -> tuple[Params, Extra]:
    """The arrays of the run that `resolve` described. Raises UserError where they are not the same any more."""
    from latent.run import load

    run = load(workdir, described["step"], described["average"])
    if _digest(run) != described["sha256"]:
        raise UserError(f"model.{name}={workdir} has changed since this run was configured.")
    arrays = _own(run)
    return arrays["params"], arrays["extra"]


def statistics(run: Any) -> dict[str, Any]:
    """Mean and standard deviation of z by channel (the last axis), the KL, the effective rank and the reconstruction
    error, over the first 20,000 training examples; computed once for a checkpoint, then read from the run's file."""
    path = run.workdir / FILE
    identity = {"step": run.step, "average": run.average}
    with contextlib.suppress(OSError, ValueError):  # not there, or damaged: it is computed again
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
    if hosts.leads():
        with contextlib.suppress(OSError):  # a run that may only be read serves as well, and a little later
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(found, indent=1) + "\n")
            temporary.rename(path)
    return found


def _digest(run: Any) -> str:
    from latent.checkpoint import digest

    return digest(_own(run))


def _own(run: Any) -> dict[str, Any]:
    """What that run trained itself; what it was handed is not handed on."""
    parts = {"params": run.state.params, "extra": run.state.extra}
    return {
        part: {name: component for name, component in tree.items() if name not in run.model.loads}
        for part, tree in parts.items()
    }
