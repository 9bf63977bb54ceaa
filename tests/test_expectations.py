"""Every config says in its docstring what a run of it gives, in the form that `scripts.table --check` re-runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from experiments import command_line
from latent import config
from latent.tables import expectations

ROOT = Path(__file__).parent.parent
FILES = [path for path in sorted(ROOT.glob("configs/*.py")) if path.stem != "base"]


def variants():
    import runpy

    for path in FILES:
        for name in runpy.run_path(str(path))["VARIANTS"]:
            if not name.startswith("tiny"):
                yield f"configs/{path.name}:{name}"


@pytest.mark.parametrize("path", list(variants()))
def test_every_config_states_results_that_its_metrics_give(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = expectations.docstring(path)
    if re.search(r"Cost:[^.]*\bGPU", text):
        assert "Target:" in text, "what was not run here states the published numbers it is after"
        return
    if "Not measured" in text:
        assert "Expected:" not in text, "what was not measured has no numbers"
        return
    stated = expectations.parse(text)
    assert stated, f'no "Expected: name value +- spread" in the docstring of {path}'
    names = expectations.possible_names(config.load(path).to_dict(), text, command_line.parse_options)
    assert {expectation.name for expectation in stated} <= set(names)
    assert all(expectation.spread >= 0 for expectation in stated)
