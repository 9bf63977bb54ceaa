"""Docstrings to expectations, and expectations against a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from latent.errors import UserError
from latent.metrics.passport import Result
from latent.tables import expectations
from latent.tables.expectations import Expectation
from scripts import table

ROOT = Path(__file__).parent.parent.parent

TEXT = """A config.

Paper: none; 5 +- 1 of something else.
Expected: elbo -98.2 +- 0.3 nats, iwae_50 -94.2 +- 0.8 (1,000 images; k 50),
active_units 22 +- 1, a mean close to 3. Cost: 2 +- 1 minutes on 2 CPU cores.
python -m experiments.evaluate --workdir=runs/x --metrics=iwae --options=iwae.num_samples=5000,iwae.chunk=500
"""


def test_a_docstring_is_read_over_lines_up_to_the_next_label():
    assert expectations.parse(TEXT) == [
        Expectation("elbo", -98.2, 0.3),
        Expectation("iwae_50", -94.2, 0.8),
        Expectation("active_units", 22.0, 1.0),
    ]
    assert expectations.evaluations(TEXT) == [(("iwae",), "iwae.num_samples=5000,iwae.chunk=500")]


@pytest.mark.parametrize("end", ["Watch: it 1 +- 2", "python -m x 1 +- 2", "", "\nMore 1 +- 2."])
def test_what_comes_after_is_left_alone(end):
    assert expectations.parse(f"Expected: a 1e-3 +- 5e-4.\n{end}") == [Expectation("a", 1e-3, 5e-4)]


def test_no_line_states_nothing_and_a_bad_one_is_named():
    assert expectations.parse("About. Expected to be good.") == []
    assert expectations.parse("Expected: 25 of 25 modes.") == []
    with pytest.raises(UserError, match="'test elbo 3 ") as error:
        expectations.parse("Expected: test elbo 3 +- 1.")
    assert "name value" in str(error.value)


def test_a_value_holds_within_its_spread_and_a_missing_one_never():
    stated = [Expectation("a", 0.3, 0.1), Expectation("b", 1.0, 0.5), Expectation("c", 1.0, 9.0)]
    results = [Result("a", 5.0, None, "", {}), Result("a", 0.2, None, "", {}), Result("b", 1.6, None, "", {})]
    verdicts = expectations.compare(stated, results)
    assert [verdict.holds for verdict in verdicts] == [True, False, False]
    lines = expectations.report(verdicts).splitlines()
    assert [line.split()[-1] for line in lines[1:]] == ["ok", "off", "off"] and "missing" in lines[3]
    assert lines[0].index("measured") == lines[1].index("0.2")


CONFIG = '''
from configs import vae

def good():
    """Expected: active_units 1 +- 1."""
    return vae.tiny()

def off():
    """Expected: active_units 1 +- 1, reconstruction_mse 9 +- 0.5."""
    return vae.tiny()

def unknown():
    """Expected: elbow 1 +- 1."""
    return vae.tiny()

def silent():
    """Nothing."""
    return vae.tiny()

VARIANTS = {"good": good, "off": off, "unknown": unknown, "silent": silent}

def get_config(variant="off"):
    return VARIANTS[variant]()
'''


@pytest.mark.slow
def test_check_trains_evaluates_and_compares(tmp_path, monkeypatch, capsys):
    """Exit 0 where all is within its spread, 1 where something is not; what can't be compared is refused at once."""
    (tmp_path / "stated.py").write_text(CONFIG)
    monkeypatch.chdir(ROOT)

    def check(variant, run="run"):
        words = [f"--check={tmp_path}/stated.py{variant}", f"--workdir={tmp_path / run}"]
        monkeypatch.setattr("sys.argv", ["table", *words])
        return table.main(), capsys.readouterr().out.splitlines()

    code, lines = check(":good")
    assert code == 0 and lines[-1].split()[-1] == "ok"
    code, lines = check("")  # the default variant, on the run that is there
    assert code == 1 and [line.split()[-1] for line in lines[-2:]] == ["ok", "off"]
    for variant, told in ((":unknown", "Did you mean 'elbo'"), (":silent", "Expected: name value")):
        with pytest.raises(UserError, match=told):
            check(variant, "never")
        assert not (tmp_path / "never").exists()
