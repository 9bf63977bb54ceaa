"""The plan: names from overrides alone, every member checked, nothing written before."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from latent import build, config
from latent.errors import UserError
from latent.sweeps import axes, plan, progress

ROOT = Path(__file__).parent.parent.parent
TINY = "configs/vae.py:tiny"


@pytest.fixture(autouse=True)
def root(monkeypatch):
    monkeypatch.chdir(ROOT)


def make(workdir, fixed=None, **words):
    return plan.make(TINY, workdir, fixed or {}, axes.parse(**words))


def test_a_name_depends_on_the_overrides_alone(tmp_path):
    members = make(tmp_path, grid=["model.latent_dim=2,3", "hparams.autoencoder.beta=0.5,1"], seeds=2).members
    assert members[0].name == "beta=0.5,latent_dim=2,seed=0" and len({member.name for member in members}) == 8
    alone = make(tmp_path, grid=["hparams.autoencoder.beta=1", "model.latent_dim=3"], seeds=1).members
    assert alone[0].name == "beta=1,latent_dim=3,seed=0" and alone[0].name in {member.name for member in members}


def test_names_are_readable_unique_and_fit():
    name = plan.name
    assert name({"model.net.hidden": (200, 100), "data.binarise": "dynamic"}) == "binarise=dynamic,hidden=200x100"
    assert name({"a.b.rate": 1e-3, "a.c.rate": 2.0}) == "b.rate=0.001,c.rate=2"
    assert name({"k": "runs/vae"}) != name({"k": "runs_vae"}) and "/" not in name({"k": "runs/vae"})
    assert name({"k": 0.1}) != name({"k": 0.1 + 1e-12})
    assert name({"k": ()}) == "k=none" and name({"k": None}) == "k=none" and name({"k": True}) == "k=true"
    long = {f"section.key_{number}": number for number in range(40)}
    assert len(name(long)) <= plan.LONGEST and name(long) != name({**long, "section.key_39": 0})


def test_a_command_says_the_same_as_the_overrides(tmp_path):
    swept = make(tmp_path, {"train.steps": "6"}, grid=["model.net.hidden=(8,),(8,4)", "data.flip=true,false"])
    for member in swept.members:
        words = [word.removeprefix("--config.") for word in swept.command(member) if word.startswith("--config.")]
        read = config.load(TINY, dict(word.split("=", 1) for word in words)).to_dict()
        flat = config.flatten(read)
        assert all(flat[key] == value for key, value in member.overrides.items())
        assert flat["train.steps"] == member.steps == 6 and flat["log.group"] == tmp_path.name


BAD = {
    "unknown key": ({"grid": ["model.latent_dims=2"]}, ["latent_dims", "'model.latent_dim'"]),
    "wrong type": ({"grid": ["model.latent_dim=2,three"]}, ["model.latent_dim='three'"]),
    "impossible": ({"grid": ["model.latent_dim=2,0"]}, ["member latent_dim=0", "model.latent_dim=0"]),
    "unread": ({"grid": ["model.capacity_steps=2,3"]}, ["model.capacity_steps", "nothing in this run reads it"]),
    "unread hparam": ({"grid": ["hparams.autoencoder.capacity=2,3"]}, ["hparams.autoencoder.capacity"]),
    "unknown name": ({"grid": ["model.net.activation=tanh,tnah"]}, ["tnah", "tanh"]),
    "steps": ({"grid": ["train.steps=4,0"]}, ["train.steps=0"]),
    "dispatch": ({"grid": ["train.steps_per_dispatch=1,3"]}, ["member steps_per_dispatch=3"]),
    "nothing": ({}, ["nothing is varied"]),
}


@pytest.mark.parametrize(("words", "told"), BAD.values(), ids=BAD)
def test_what_a_member_could_not_run_is_refused_before_anything_is_written(tmp_path, words, told):
    with pytest.raises(UserError) as error:
        make(tmp_path / "sweep", **words)
    assert all(word in str(error.value) for word in told), str(error.value)
    assert not (tmp_path / "sweep").exists()


def test_a_key_cannot_be_fixed_and_varied(tmp_path):
    with pytest.raises(UserError, match="varied and fixed"):
        make(tmp_path, {"model.latent_dim": "3"}, grid=["model.latent_dim=2"])


def test_a_structure_is_built_once(tmp_path, monkeypatch):
    built, original = [], build.build
    monkeypatch.setattr(build, "build", lambda *given: built.append(given[1]) or original(*given))
    make(tmp_path, random=["hparams.autoencoder.beta=log:0.1..10"], grid=["model.latent_dim=2,3"], draws=5, seeds=3)
    assert len(built) == 2
    assert ["hparams.autoencoder.beta" in keys for keys in built] == [True, False]  # traced once


def test_what_is_expensive_is_done_once_for_200_members(tmp_path, monkeypatch):
    """Of two sizes, 20 rates and five seeds: each size is built once, hparams are traced once, data are read once, and
    a state is shaped only where a build needs it. One member costs no more than reading its config."""
    count = dict.fromkeys(("build", "_scalars_read", "load"), 0)

    def counted(module, name):
        original = getattr(module, name)

        def call(*given):
            count[name] += 1
            return original(*given)

        monkeypatch.setattr(module, name, call)

    counted(build, "build")
    counted(build, "_scalars_read")
    counted(build.datasets, "load")
    rates = ",".join(f"{rate}e-4" for rate in range(1, 21))
    made = make(tmp_path, grid=["model.latent_dim=2,3", f"hparams.autoencoder.learning_rate={rates}"], seeds=5)
    assert len(made.members) == 200 and len({member.name for member in made.members}) == 200
    assert count == {"build": 2, "_scalars_read": 1, "load": 1}


def test_equal_draws_are_one_member(tmp_path):
    assert len(make(tmp_path, random=["model.latent_dim=int:1..2"], draws=12).members) == 2


def test_the_file_is_the_plan_and_remembers_earlier_members(tmp_path):
    first, second = make(tmp_path, grid=["model.latent_dim=2,3"]), make(tmp_path, grid=["model.latent_dim=3,4"])
    plan.write(first)
    assert json.loads(plan.describe(first)) == plan.read(tmp_path)
    plan.write(second)
    names = [row["name"] for row in plan.read(tmp_path)["members"]]
    assert names == ["latent_dim=2", "latent_dim=3", "latent_dim=4"]
    plan.check_directory(second)
    with pytest.raises(UserError, match="holds a sweep of"):
        plan.check_directory(second._replace(config="configs/gan.py:tiny"))


def test_another_run_in_a_members_directory_is_refused(tmp_path):
    swept = make(tmp_path, grid=["model.latent_dim=2"])
    directory = swept.directory(swept.members[0])
    directory.mkdir(parents=True)
    settings = config.load(TINY, {"model.latent_dim": 2, "log.group": tmp_path.name}).to_dict()
    config.write(build.resolved(settings), directory)
    make(tmp_path, {"train.steps": "8"}, grid=["model.latent_dim=2"])  # longer: the same run, continued
    assert progress.state(swept, swept.members[0]) == "started"
    with pytest.raises(UserError, match="latent_dim=2: --workdir holds another run; these keys differ: data"):
        make(tmp_path, {"data.flip": "true"}, grid=["model.latent_dim=2"])


def test_the_command_exits_2_with_one_line_and_writes_nothing(tmp_path):
    words = ["--grid", "model.latent_dims=2,3", f"--workdir={tmp_path / 'sweep'}"]
    command = [sys.executable, "-m", "scripts.sweep", TINY, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "'model.latent_dim'" in done.stderr
    assert not (tmp_path / "sweep").exists()


PLANNING = """
import time
from pathlib import Path
from latent.sweeps import axes, plan
asked = axes.parse(random=["model.latent_dim=int:2..9999", "hparams.autoencoder.beta=log:0.1..10"], draws=200)
start = time.process_time()
made = plan.make("configs/vae.py:digits", Path("never"), {}, asked)
print(len(made.members), time.process_time() - start)
"""


@pytest.mark.slow
def test_200_members_are_planned_in_two_seconds():
    """In a process of its own, where no types are checked; its own time, which a busy machine does not stretch."""
    done = subprocess.run([sys.executable, "-c", PLANNING], capture_output=True, text=True, check=True)
    count, seconds = done.stdout.split()
    assert int(count) == 200 and float(seconds) < 2
