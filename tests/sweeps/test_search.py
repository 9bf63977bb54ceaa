"""The search: finds what is better, prunes what is hopeless, goes on where it stopped."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from latent.errors import UserError
from latent.sweeps import axes, plan, progress, search
from latent.sweeps.launchers.options import Options
from tests.sweeps import stubs

ROOT = Path(__file__).parent.parent.parent
SPACE = ["hparams.autoencoder.learning_rate=log:1e-5..1"]


@pytest.fixture(autouse=True)
def root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(plan.Plan, "command", stubs.command())


def make(workdir, draws, space=SPACE, metric="elbo", mode=""):
    swept = plan.make(stubs.TINY, workdir, {}, axes.parse(random=space, draws=draws), metric, mode)
    plan.write(swept._replace(members=()))
    return swept


def rates(workdir):
    return [row["overrides"]["hparams.autoencoder.learning_rate"] for row in plan.read(workdir)["members"]]


def test_without_optuna_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match="pip install -e"):
        search.require(axes.parse(random=SPACE, draws=2))


def test_a_search_takes_its_space_from_random_alone():
    with pytest.raises(UserError, match="--random"):
        search.require(axes.parse(["model.latent_dim=2"], random=SPACE, draws=2))


def test_the_metric_must_be_one_that_members_log(tmp_path):
    with pytest.raises(UserError, match=r"elbow.*Did you mean 'elbo'"):
        make(tmp_path, 2, metric="elbow")
    with pytest.raises(UserError, match="--mode"):
        make(tmp_path, 2, metric="kl")
    assert make(tmp_path, 2, metric="autoencoder/loss", mode="min").metric == plan.Metric("autoencoder/loss", "min")
    assert make(tmp_path, 2).metric == plan.Metric("elbo", "max")


def test_later_trials_are_better_than_random_ones(tmp_path):
    pytest.importorskip("optuna", reason='needs pip install -e ".[sweeps]"')
    assert search.run(make(tmp_path, 40), Options(jobs=2)) == 0
    errors = [abs(math.log10(rate) + 2) for rate in rates(tmp_path)]
    assert len(set(errors)) == 40
    assert sum(errors[20:]) / 20 < 0.95  # decades from the best; random draws: 1.3


def test_a_search_that_was_stopped_goes_on(tmp_path, capsys):
    pytest.importorskip("optuna", reason='needs pip install -e ".[sweeps]"')
    swept = make(tmp_path, 5, space=["model.latent_dim=3,4,5,6,7"])

    def interrupt():
        stubs.wait(lambda: list(tmp_path.glob("*/waiting")))
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt).start()
    assert search.run(swept, Options(jobs=1)) == 128 + signal.SIGTERM
    assert "stopped   latent_dim=3" in capsys.readouterr().out
    for draws, started in ((5, True), (5, False)):
        assert search.run(swept._replace(axes=swept.axes._replace(draws=draws)), Options(jobs=1)) == 0
        assert ("started" in capsys.readouterr().out) == started
    known = plan.read(tmp_path)["members"]
    whole = swept._replace(members=tuple(plan.make_member(swept, row["draw"])[0] for row in known))
    assert stubs.starts(whole) == {member.name: 1 + (member.name == "latent_dim=3") for member in whole.members}
    assert all(progress.finished(whole, member) for member in whole.members) and len(known) == 5


@pytest.mark.parametrize(
    ("before", "after", "counted"),
    [("4,5,6", "6,9", {6}), ("int:4..6", "int:6..9", {6}), ("4,5,6", "int:7..9", set()), ("int:4..6", "7,9", set())],
)
def test_of_an_earlier_search_what_lies_in_the_space_counts(tmp_path, before, after, counted):
    """5 is finished and 4 was stopped in a wider space, or in one of text: optuna would refuse either."""
    pytest.importorskip("optuna", reason='needs pip install -e ".[sweeps]"')
    wide = search.Search(make(tmp_path, 3, space=[f"model.latent_dim={before}"]))
    for member in (wide.take(), wide.take(), wide.take()):
        if member.overrides["model.latent_dim"] != 4:
            subprocess.run(wide.plan.command(member), check=True)
    narrow = search.Search(make(tmp_path, 2, space=[f"model.latent_dim={after}"]))
    assert {member.overrides["model.latent_dim"] for member in narrow.done} == counted
    assert search.run(make(tmp_path, 2, space=[f"model.latent_dim={after}"]), Options(jobs=1)) == 0
    listed = {row["overrides"]["model.latent_dim"] for row in plan.read(tmp_path)["members"]}
    assert listed >= {4, 5, 6} and len(narrow.plan.members) == len(counted)


def test_hopeless_trials_are_pruned_and_stay_so(tmp_path, monkeypatch, capsys):
    pytest.importorskip("optuna", reason='needs pip install -e ".[sweeps]"')
    monkeypatch.setattr(plan.Plan, "command", stubs.command(pause=0.3))
    monkeypatch.setattr(search, "STARTUP", 2)
    monkeypatch.setattr("latent.sweeps.launchers.local.WATCH", 0.02)
    swept = make(tmp_path, 8)
    assert search.run(swept, Options(jobs=4)) == 0
    rows = plan.read(tmp_path)["members"]
    pruned = [row for row in rows if row.get("outcome") == "pruned"]
    assert pruned and all(not (tmp_path / row["name"] / "checkpoints").exists() for row in pruned)
    capsys.readouterr()
    assert search.run(swept, Options(jobs=4)) == 0
    assert "started" not in capsys.readouterr().out and plan.read(tmp_path)["members"] == rows
