"""Launchers: what is started, with which share of the machine, how failures and signals are met."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from unittest import mock

import pytest
import yaml

from latent.errors import UserError
from latent.sweeps import axes, plan, progress
from latent.sweeps.launchers import local, wandb
from latent.sweeps.launchers import print as printing
from latent.sweeps.launchers.options import Options
from tests import harness
from tests.sweeps import stubs

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(plan.Plan, "command", stubs.command())


def unfinished(swept):
    return [member for member in swept.members if not progress.finished(swept, member)]


# Local ---------------------------------------------------------------------------------------------------------


def test_shares_are_disjoint_while_there_are_enough_cores():
    parts = local.shares(3, list(range(8)), [])
    assert sorted(core for part in parts for core in part.cores) == list(range(8))
    assert [part.environment["OMP_NUM_THREADS"] for part in parts] == ["2", "3", "3"]
    assert [part.cores for part in local.shares(3, [4, 5], [])] == [{4}, {4}, {5}]
    assert len(local.shares(0, list(range(8)), [])) == 4 and len(local.shares(0, [0], [])) == 1


def test_members_get_a_gpu_each_and_divide_memory_where_they_share_one():
    alone = local.shares(0, list(range(8)), ["0", "3"])
    assert [part.environment["CUDA_VISIBLE_DEVICES"] for part in alone] == ["0", "3"]
    assert all("XLA_PYTHON_CLIENT_MEM_FRACTION" not in part.environment for part in alone)
    shared = local.shares(3, list(range(8)), ["0", "3"])
    assert [part.environment["CUDA_VISIBLE_DEVICES"] for part in shared] == ["0", "3", "0"]
    assert {part.environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] for part in shared} == {"0.450"}


def test_visible_gpus_are_those_of_the_environment():
    assert local.gpus({"CUDA_VISIBLE_DEVICES": "2,5"}) == ["2", "5"] and local.gpus({"CUDA_VISIBLE_DEVICES": ""}) == []
    assert local.gpus({"CUDA_VISIBLE_DEVICES": "2", "JAX_PLATFORMS": "cpu"}) == []


def test_a_failure_stops_nothing_else_and_the_second_call_runs_only_what_is_missing(tmp_path, capsys):
    swept = stubs.make(tmp_path, grid=["model.latent_dim=1,2,4,5,6"])
    assert local.launch(swept, unfinished(swept), Options(jobs=2)) == 1
    text = capsys.readouterr().out
    assert "exit 1: it went wrong" in text and "SIGKILL" in text and "3 of 5 finished, 2 failed" in text
    assert [member.name for member in unfinished(swept)] == ["latent_dim=1", "latent_dim=2"]
    assert local.launch(swept, unfinished(swept), Options(jobs=2)) == 1
    assert stubs.starts(swept) == {
        "latent_dim=1": 2,
        "latent_dim=2": 2,
        "latent_dim=4": 1,
        "latent_dim=5": 1,
        "latent_dim=6": 1,
    }
    assert "4 of 5 finished, 1 failed; best elbo" in capsys.readouterr().out


def test_a_member_runs_on_its_share_and_its_output_is_kept(tmp_path):
    swept = stubs.make(tmp_path, grid=["model.latent_dim=1,4"])
    local.launch(swept, swept.members, Options(jobs=len(local.cores())))
    found = json.loads((swept.directory(swept.members[1]) / "starts").read_text())
    assert len(found["cores"]) == 1 and found["threads"] == "1"
    assert progress.last_words(swept.directory(swept.members[0])) == "it went wrong"
    assert sorted(os.sched_getaffinity(0)) == local.cores()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_every_member_save_and_leaves_the_rest_for_later(tmp_path, capsys, number):
    swept = stubs.make(tmp_path, grid=["model.latent_dim=3,4,5"])
    waiting = swept.directory(swept.members[0]) / "waiting"

    def interrupt():
        stubs.wait(waiting.exists)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt).start()
    assert local.launch(swept, swept.members, Options(jobs=1)) == 128 + number
    assert stubs.starts(swept) == {"latent_dim=3": 1, "latent_dim=4": 0, "latent_dim=5": 0}
    assert "0 of 3 finished, 1 stopped" in capsys.readouterr().out
    assert local.launch(swept, unfinished(swept), Options(jobs=2)) == 0


def test_a_directory_in_use_is_seen(tmp_path):
    from latent import provenance

    swept = stubs.make(tmp_path, grid=["model.latent_dim=4"])
    with provenance.claimed(swept.directory(swept.members[0])):
        assert progress.state(swept, swept.members[0]) == "running"
    assert progress.state(swept, swept.members[0]) == "missing"


@pytest.mark.slow
def test_a_real_sweep_with_two_kills_in_the_middle_runs_nothing_twice(tmp_path):
    """Twelve real runs on digits; two are killed (-9) while they train; the second call goes on with these alone."""
    lengths = "--config.train.steps=2000 --config.log.every=100 --config.eval.every=1000 --config.checkpoint.every=500"
    words = f"{stubs.TINY} --grid model.latent_dim=2,3,4 --seeds 4 --workdir={tmp_path} --jobs 2 {lengths}"
    command = [sys.executable, "-m", "scripts.sweep", *words.split(), "--config.train.steps_per_dispatch=2"]
    environment = {**os.environ, "XLA_FLAGS": ""}
    victims = [tmp_path / name for name in ("latent_dim=2,seed=1", "latent_dim=3,seed=2")]
    first = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    for victim in victims:
        stubs.wait(lambda path=victim / "checkpoints" / "500": path.is_dir() or first.poll() is not None, 600)
        found = next(path for path in Path("/proc").glob("[0-9]*/cmdline") if _runs(path, "experiments.train", victim))
        os.kill(int(found.parent.name), signal.SIGKILL)
    text = first.communicate()[0]
    assert first.returncode == 1 and text.count("SIGKILL") == 2 and "10 of 12 finished, 2 failed" in text
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/metrics.jsonl") if path.parent not in victims}
    second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert second.returncode == 0 and second.stdout.count("started") == 2 and "12 of 12 finished" in second.stdout
    assert len(kept) == 10 and all(path.stat().st_mtime_ns == time for path, time in kept.items())
    starts = {path.parent: len(json.loads(path.read_text())) for path in tmp_path.glob("*/provenance.json")}
    assert len(starts) == 12 and all(count == 1 + (path in victims) for path, count in starts.items())
    for path in starts:
        assert [line["step"] for line in harness.lines(path)] == list(range(100, 2001, 100)), "no step was logged twice"


def _runs(cmdline, module, directory):
    """Whether a process runs a module on a directory."""
    try:
        words = cmdline.read_text().split("\0")
    except OSError:
        return False
    return words[1:2] in (["-m"], ["-u"]) and module in words and any(str(directory) in word for word in words)


# Print and W&B -------------------------------------------------------------------------------------------------


def test_print_gives_the_commands_and_nothing_else(tmp_path, capsys, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(ROOT)
    swept = stubs.make(tmp_path / "with space", grid=["model.net.hidden=(8,),(8,4)"])
    assert printing.launch(swept, swept.members, Options()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [shlex.split(line) for line in lines] == [swept.command(member) for member in swept.members]


@pytest.mark.slow
def test_an_agent_of_wandb_starts_the_same_members(tmp_path, monkeypatch, capsys):
    """The YAML's grid, expanded by W&B's own rules, gives the members of the plan under the same names."""
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    monkeypatch.undo()
    monkeypatch.chdir(ROOT)
    from scripts import sweep

    swept = stubs.make(tmp_path, grid=["model.net.hidden=(8,),(8,4)", "data.flip=true,false"], seeds=2)
    plan.write(swept)
    assert wandb.launch(swept, swept.members, Options()) == 0
    written = yaml.safe_load((tmp_path / wandb.FILE).read_text())
    assert written["method"] == "grid" and written["metric"] == {"name": "validation/elbo", "goal": "maximize"}
    values = {key: found["values"] for key, found in written["parameters"].items()}
    started = []
    monkeypatch.setattr(os, "execv", lambda program, words: started.append(words))
    for hidden in values["config.model.net.hidden"]:
        for flip in values["config.data.flip"]:
            for seed in values["config.seed"]:
                chosen = {"config.model.net.hidden": hidden, "config.data.flip": flip, "config.seed": seed}
                told = {"args": {key: {"value": value} for key, value in chosen.items()}}
                arguments = utils.create_sweep_command_args(told)["args"]
                words = [word for word in written["command"] if word not in ("${env}", "${args}")] + list(arguments)
                assert words[:3] == ["python", "-m", "scripts.sweep"]
                monkeypatch.setattr(sys, "argv", words[2:])
                sweep.main()
    assert started == [swept.command(member) for member in swept.members]


def test_draws_and_searches_for_wandb(tmp_path):
    spaces = ["model.latent_dim=int:2..9", "hparams.autoencoder.beta=log:0.1..10", "model.net.activation=tanh,relu"]
    swept = stubs.make(tmp_path, random=spaces, draws=3)
    found = wandb.describe(swept, search=False)
    assert found["method"] == "random" and found["run_cap"] == 3
    assert found["parameters"]["config.model.latent_dim"] == {"distribution": "int_uniform", "min": 2, "max": 9}
    assert found["parameters"]["config.hparams.autoencoder.beta"]["distribution"] == "log_uniform_values"
    assert found["parameters"]["config.model.net.activation"] == {"values": ["tanh", "relu"]}
    assert wandb.describe(swept, search=True)["method"] == "bayes"
    for words in ({"zips": [["model.latent_dim=2,3", "train.batch_size=16,32"]]}, {"random": spaces, "seeds": 2}):
        asked = axes.parse(**words, draws=3 if "random" in words else 0)
        with pytest.raises(UserError, match="either a grid"):
            wandb.describe(swept._replace(axes=asked), search=False)


# submitit ------------------------------------------------------------------------------------------------------


def _submitit():
    """submitit, kept from configuring logging when it is imported: that closes handlers, absl's among them, and with
    them the stream that pytest captures."""
    with mock.patch("logging.config.dictConfig"):
        return pytest.importorskip("submitit", reason='needs pip install -e ".[sweeps]"')


def test_without_submitit_the_message_says_how_to_install_it(tmp_path, monkeypatch):
    from latent.sweeps.launchers import slurm

    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match="pip install -e"):
        slurm.make_executor(tmp_path, Options())


def test_submitits_local_executor_runs_the_members(tmp_path, capsys):
    _submitit()
    from latent.sweeps.launchers import slurm

    swept = stubs.make(tmp_path, grid=["model.latent_dim=4,5"])
    assert slurm.launch(swept, swept.members, Options(cluster={"cluster": "local"})) == 0
    assert capsys.readouterr().out.count("job ") == 2
    stubs.wait(lambda: not unfinished(swept))


def test_a_preempted_job_lets_its_member_save_and_goes_back_into_the_queue(tmp_path):
    submitit = _submitit()
    from latent.sweeps.launchers import slurm

    swept = stubs.make(tmp_path, grid=["model.latent_dim=3"])
    (member,) = swept.members
    executor = slurm.make_executor(tmp_path / "slurm", Options(cluster={"cluster": "local", "timeout_min": 20}))
    job = executor.submit(slurm.Train(swept.command(member)))
    stubs.wait((swept.directory(member) / "waiting").exists)
    task = next(path for path in Path("/proc").glob("[0-9]*/cmdline") if _runs(path, "submitit.core._submit", tmp_path))
    os.kill(int(task.parent.name), signal.SIGUSR2)  # what SLURM sends; the executor's own signal does not reach a task
    assert job.result() == "finished" and stubs.starts(swept) == {member.name: 2}
    assert isinstance(job, submitit.Job)


def test_the_slurm_script_says_what_was_asked_for(tmp_path, monkeypatch, capsys):
    """A stand-in for sbatch keeps the script; squeue says which jobs wait, and they are not submitted again."""
    _submitit()
    from latent.sweeps.launchers import slurm

    tools = tmp_path / "bin"
    tools.mkdir()
    for name, body in {
        "srun": "exit 0",
        "sbatch": f'cp "$1" {tmp_path}/script.sh; echo "Submitted batch job 77"',
        "squeue": f"cat {tmp_path}/queue",
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    (tmp_path / "queue").write_text("")
    swept = stubs.make(tmp_path / "sweep", grid=["model.latent_dim=4,5,6"])
    options = Options(jobs=2, cluster={"timeout_min": 90, "slurm_partition": "gpu", "gpus_per_node": 1})
    assert slurm.launch(swept, swept.members, options._replace(dry_run=True)) == 0
    assert "#SBATCH --partition=gpu" in capsys.readouterr().out and not swept.workdir.exists()
    assert slurm.launch(swept, swept.members, options) == 0
    script = (tmp_path / "script.sh").read_text()
    for line in ("--array=0-2%2", "--time=90", "--partition=gpu", "--gpus-per-node=1", "--signal=USR2@90"):
        assert f"#SBATCH {line}" in script, script
    assert "submitit.core._submit" in script
    (tmp_path / "queue").write_text("77_0\n77_2\n")
    capsys.readouterr()
    slurm.launch(swept, swept.members, options)
    assert capsys.readouterr().out == "job 77  latent_dim=5\n"
    with pytest.raises(UserError, match="--cluster"):
        slurm.launch(swept, swept.members, Options(cluster={"slurm_partitoin": "gpu"}))
