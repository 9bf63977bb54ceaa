"""What the run is: facts, findings in plain words, config, where it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jax

from latent import build, logs, provenance
from latent import config as configs
from latent.report import findings, images
from latent.report.evidence import Evidence
from latent.report.page import Section, number
from latent.report.sections import metrics

HERO = 20
"""Pictures under the title."""

SIZES = " \u00d7 "  # the sign between lengths

SHOWN = ("seed", "data.", "model.", "optimizer.", "hparams.", "ema.", "train.")
"""Config keys that say what was trained; the rest says how it was watched."""


def section(evidence: Evidence) -> Section:
    """Always there."""
    run, config = evidence.run, evidence.config
    starts = _starts(evidence)
    last = starts[-1] if starts else {}
    pictured = evidence.x if evidence.samples is None else evidence.samples
    values = {
        "headline": headline(evidence),
        "pictures": images.each(pictured[:HERO]) if evidence.is_image else [],
        "pictured": "examples" if evidence.samples is None else "samples",
        "measured": [row for row in metrics.shown(evidence) if row["split"] == evidence.split and not row["reason"]][
            :4
        ],
        "facts": _facts(evidence),
        "findings": findings.of(evidence),
        "config": {key: _word(value) for key, value in configs.flatten(config).items() if key.startswith(SHOWN)},
        "origin": _origin(evidence, last, len(starts)),
        "packages": last.get("packages", {}),
        "card": evidence.run.experiment.dataset.card,
        "workdir": str(run.workdir),
    }
    return Section("Overview", "", values)


def headline(evidence: Evidence) -> str:
    """One sentence: which family, on which data, from which codes."""
    name = evidence.config["data"]["name"]
    codes = (
        f", {evidence.config['model']['latent_dim']} latent dimensions"
        if "latent_dim" in evidence.config["model"]
        else ""
    )
    return f"{evidence.family} on {name}{codes}"


def _facts(evidence: Evidence) -> list[tuple[str, str, str]]:
    """(what, value, small print)."""
    run, config, splits = evidence.run, evidence.config, evidence.run.experiment.dataset.splits
    count = build.count_parameters(run.state)
    lines = [line["time"] for line in logs.read(run.workdir / logs.FILE)]
    found = [
        (
            "parameters",
            logs.quantity(float(count)),
            f"{number(count)} in {', '.join(sorted(run.state.params))}",
        ),
        ("trained", f"{number(run.step)} steps", run.experiment.duration(run.step)),
        ("data", config["data"]["name"], ", ".join(f"{number(len(part.x))} {name}" for name, part in splits.items())),
        ("example", SIZES.join(map(str, evidence.spec.shape)), f"{evidence.spec.num_classes or 'no'} classes"),
    ]
    if evidence.model.encode is not None or evidence.model.decode is not None:
        shape = evidence.latent_shape
        found.append(("code", SIZES.join(map(str, shape)), "numbers for each example"))
    found.append(("weights", run.average or "raw", "moving average" if run.average else "as the optimiser left them"))
    if len(lines) > 1:
        found.append(("wall time", logs.duration(max(lines) - min(lines)), "from first to last log line"))
    looked = f"{number(len(evidence.rows))} of {number(evidence.split_size)} {evidence.split} examples"
    found.append(("looked at", evidence.split, looked))
    return found


def _starts(evidence: Evidence) -> list[dict[str, Any]]:
    path = evidence.run.workdir / provenance.FILE
    return json.loads(path.read_text()) if path.exists() else []


def _origin(evidence: Evidence, last: Mapping[str, Any], starts: int) -> dict[str, str]:
    commit = last.get("commit", "")
    found = {
        "work directory": str(evidence.run.workdir),
        "last started": f"{last.get('time', 'unknown')} ({starts} start{'s' if starts != 1 else ''})",
        "command": " ".join(last.get("command", [])),
        "code": commit.rstrip("+") + (" with changes that are not committed" if commit.endswith("+") else ""),
        "trained on": ", ".join(last.get("devices", [])),
        "report made on": jax.devices()[0].device_kind,
        "config SHA-256": provenance.config_digest(evidence.config),
        f"{evidence.split} SHA-256": evidence.run.experiment.dataset.digests[evidence.split],
    }
    stage = evidence.config["model"].get("first_stage")
    if stage:
        found["first stage"] = f"{stage} at step {evidence.config['model']['first_stage_run']['step']}"
    return {name: value for name, value in found.items() if value}


def _word(value: Any) -> str:
    return json.dumps(value) if isinstance(value, list | tuple | bool | None) else str(value)
