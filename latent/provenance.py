"""Where numbers come from: provenance.json, and the claim of one process on a work directory."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from latent import hosts
from latent.build import Experiment
from latent.errors import UserError

FILE = "provenance.json"
PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "ml_collections",
    "numpy",
    "tensorflow-datasets",
)


@contextlib.contextmanager
def claimed(workdir: Path) -> Iterator[None]:
    """Holds the work directory for this process, or for those that it leads; directories that this call made are
    removed again if left empty.

    Raises UserError where it cannot be written, or another process trains in it.
    """
    if not hosts.leads():
        yield
        return
    made = [folder for folder in (workdir, *workdir.parents) if not folder.exists()]
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        handle = os.open(workdir, os.O_RDONLY)
        if not os.access(workdir, os.W_OK):
            raise PermissionError("permission denied")
    except OSError as error:
        raise UserError(f"--workdir={workdir} cannot be written: {error.strerror or error}.") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"--workdir={workdir} is in use: another process trains in it.") from error
        yield
    finally:
        os.close(handle)
        for folder in made:
            if any(folder.iterdir()):
                break
            folder.rmdir()


def config_digest(config: dict[str, Any]) -> str:
    """SHA-256 of the config as canonical JSON."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


@functools.cache
def commit() -> str:
    """The git commit of the code, "+" appended when files differ from it; empty outside a repository."""
    here = Path(__file__).parent
    try:
        call = lambda *words: subprocess.run(  # noqa: E731
            ["git", *words], cwd=here, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        return call("rev-parse", "HEAD") + ("+" if call("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def write(workdir: Path, experiment: Experiment, devices: Sequence[Any]) -> None:
    """Appends this start to provenance.json: versions, commit, devices, command line, data."""
    path = workdir / FILE
    starts = json.loads(path.read_text()) if path.exists() else []
    starts.append(
        {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "command": sys.argv,
            "commit": commit(),
            "python": sys.version.split()[0],
            "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
            "devices": [device.device_kind for device in devices],
            "config_sha256": config_digest(experiment.config),
            "data": {
                "name": experiment.dataset.name,
                "sha256": experiment.dataset.digests,
                "card": experiment.dataset.card,
            },
        }
    )
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(starts, indent=2) + "\n")
    temporary.rename(path)


def of_result(experiment: Experiment, step: int) -> dict[str, Any]:
    """What is recorded beside a number and may differ within a table."""
    return {
        "seed": experiment.config["seed"],
        "step": step,
        "epochs": experiment.epochs(step),
        "published_epochs": experiment.config["train"]["published_epochs"],
        "config_sha256": config_digest(experiment.config),
        "commit": commit(),
    }
