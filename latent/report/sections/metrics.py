"""The numbers that were measured, with their passports: evaluation/STEP.json as a table."""

from __future__ import annotations

import json
from typing import Any

from latent import evaluate
from latent.report.evidence import Evidence
from latent.report.page import Absent, Section, number

TITLE = "Metrics"


def rows(evidence: Evidence) -> list[dict[str, Any]]:
    """The results recorded for this step, those of the report's split first."""
    path = evidence.run.workdir / evaluate.DIRECTORY / f"{evidence.run.step}.json"
    found = json.loads(path.read_text()) if path.exists() else []
    return sorted(found, key=lambda row: (row["protocol"].get("split") != evidence.split, row["value"] is None))


def shown(evidence: Evidence) -> list[dict[str, Any]]:
    """The same as words."""
    return [
        {
            "name": row["name"],
            "value": "not defined" if row["value"] is None else number(row["value"], 5),
            "error": number(row["standard_error"], 2) if row["standard_error"] is not None else "",
            "unit": row["unit"],
            "split": row["protocol"].get("split", ""),
            "count": number(row["protocol"]["N"]) if "N" in row["protocol"] else "",
            "reason": row["reason"],
            "protocol": {key: _word(value) for key, value in row["protocol"].items()},
            "provenance": {key: _word(value) for key, value in row.get("provenance", {}).items()},
        }
        for row in rows(evidence)
    ]


def section(evidence: Evidence) -> Section | Absent:
    """Needs an evaluation of this step."""
    if not rows(evidence):
        command = f"python -m experiments.evaluate --workdir={evidence.run.workdir}"
        return Absent(TITLE, f"Step {evidence.run.step} has not been evaluated: {command}")
    lead = "Each number opens to its passport: only numbers of equal protocol may be compared."
    return Section(TITLE, lead, {"rows": shown(evidence)})


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
