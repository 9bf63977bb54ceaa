"""Two real processes of four devices against one of eight: losses, evaluations, checkpoints, stops and refusals."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import latent
from latent import checkpoint, config, failure, hosts
from latent.data.arrays import Split
from latent.data.feed import resident_feed, streamed_feed
from latent.errors import UserError
from latent.train import train
from tests.harness import lines

ROOT = Path(__file__).parent.parent
BASE = {
    "model.rate": "free_bits",  # coupled over the batch
    "model.net.hidden": "64,",  # wide enough for fsdp to split
    "optimizer.autoencoder.name": "sgd",  # Adam would hide a constant factor
    "optimizer.autoencoder.schedule.horizon": 10,
    "eval.metrics": "elbo,kid",
    "eval.every": 4,
    "eval.options.kid.extractor": "pixels",
    "checkpoint.every": 4,
    "checkpoint.best_metric": "elbo",
    "train.steps": 10,
}
STREAMED = {"data.device_budget": 0}
"""Examples are read from disk, by each process its own."""
MESH = {"parallel.driver": "mesh", "train.steps_per_dispatch": 1}
FSDP = {"parallel.driver": "mesh", "parallel.fsdp": True, "ema.relative_widths": "0.1,"}
FSDP |= {"ema.snapshot_every": 4, "eval.average": "width_0.1"}
SECONDS = 1200
"""Until a process that hangs is ended; the machine may be busy."""


def settings(**overrides):
    return config.load("configs/vae.py:tiny", overrides).to_dict()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(command, variables=(), **options):
    clusters = ("SLURM_", "OMPI_", "KUBERNETES_", "JAX_COORDINATOR")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(clusters)}
    compiled = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=4")
    environment |= {"XLA_FLAGS": compiled, "PYTHONPATH": str(ROOT), **dict(variables)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, text=True, **pipes, **options)


@contextlib.contextmanager
def running(commands, variables=((), ())):
    """Processes started at once, each with its variables of the environment; none of them outlives the block."""
    processes = [start(command, its) for command, its in zip(commands, variables, strict=True)]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def together(folder, jobs):
    """The outcomes of jobs in two processes that have joined: a pair for each."""
    port, files = free_port(), [folder / f"outcomes{number}" for number in (0, 1)]
    text = "".join(json.dumps(job, default=str) + "\n" for job in jobs)
    worker = ["-m", "tests.hosts_worker", str(port), "2"]
    with running([[*worker, str(number), str(file)] for number, file in enumerate(files)]) as processes:
        for process in processes:
            process.stdin.write(text)
            process.stdin.flush()
            process.stdin.close()
            process.stdin = None
        for process in processes:
            _, errors = process.communicate(timeout=SECONDS)
            assert process.returncode == 0, errors
    return list(zip(*([json.loads(line) for line in file.read_text().splitlines()] for file in files), strict=True))


def stop_and_go_on(folder, runs, more=()):
    """Every run of {name: overrides} stopped by a signal, continued by one process to step 8 and by two to 10; the
    steps of the stops, and the outcomes of `more` jobs, run beside the first ones."""
    first = [
        {"path": folder / name, "overrides": {**BASE, **changes, "train.steps": 8}, "signal_at": 2}
        for name, changes in runs.items()
    ]
    outcomes = together(folder, [*first, *more])
    assert outcomes[: len(first)] == [(143, 143)] * len(first), outcomes
    stopped = {name: checkpoint.Checkpoints(folder / name).steps()[-1] for name in runs}
    for name, changes in runs.items():
        assert train(settings(**{**BASE, **changes, "train.steps": 8}), folder / name) == 0
    last = [{"path": folder / name, "overrides": {**BASE, **changes}} for name, changes in runs.items()]
    assert together(folder, last) == [(0, 0)] * len(last)
    return stopped, outcomes[len(first) :]


def assert_the_same(folder, reference):
    """Training lines, evaluations and weights of two runs."""
    for split in ("train", "validation"):
        ours, theirs = lines(folder, split), lines(reference, split)
        assert [line["step"] for line in ours] == [line["step"] for line in theirs]
        for line, other in zip(ours, theirs, strict=True):
            assert {"split", "step"} < line.keys() <= other.keys()
            for key in line.keys() - {"split", "step"}:
                np.testing.assert_allclose(line[key], other[key], rtol=1e-5, atol=1e-5, err_msg=key)
    one, other = latent.load(folder).state, latent.load(reference).state
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, other)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One process of eight devices (`reference`), and what two processes of four made of the same run, and refused."""
    folder = tmp_path_factory.mktemp("hosts")
    more = {
        "halted": {"overrides": {**BASE, **STREAMED, "hparams.autoencoder.learning_rate": 1e30}},
        "batch": {"overrides": {**BASE, "train.batch_size": 12}},
        "devices": {"overrides": {**BASE, "parallel.devices": 4}},
        "unshared": {"overrides": BASE, "path": [str(folder / "here"), str(folder / "there")]},
        "missing": {"overrides": {**BASE, "data.name": ["digits", "nothing"]}},
    }
    jobs = [{"path": folder / name, **job} for name, job in more.items()]
    stopped, outcomes = stop_and_go_on(folder, {"pmap": STREAMED}, jobs)
    assert train(settings(**BASE), folder / "reference") == 0
    return folder, stopped, dict(zip(more, outcomes, strict=True))


@pytest.mark.slow
def test_two_processes_compute_what_one_does(trained):
    """Stopped, continued by one process, and by two again: the lines, evaluations and weights of a run in one go."""
    folder, _, _ = trained
    assert_the_same(folder / "pmap", folder / "reference")


@pytest.mark.slow
def test_all_processes_stop_after_the_same_step(trained):
    """Process 1 alone had the signal, after step 2; the checkpoint is of a step that no cadence asked for."""
    _, stopped, _ = trained
    assert stopped == {"pmap": 2 + 2 * (1 + hosts.LAG)}  # of two steps a dispatch


@pytest.mark.slow
def test_the_first_process_alone_writes(trained):
    folder, _, _ = trained
    run, reference = folder / "pmap", folder / "reference"
    assert [line["step"] for line in lines(run)] == [2, 4, 6, 8, 10]
    starts = json.loads((run / "provenance.json").read_text())
    assert [len(each["devices"]) for each in starts] == [8, 8, 8]
    assert {path.name for path in run.iterdir()} == {path.name for path in reference.iterdir()}
    assert "10-samples.png" in {path.name for path in (run / "images").iterdir()}
    assert checkpoint.Checkpoints(run).steps() == checkpoint.Checkpoints(reference).steps()


@pytest.mark.slow
def test_non_finite_values_stop_all_processes(trained):
    folder, _, outcomes = trained
    (kind, words), other = outcomes["halted"]
    assert kind == "NonFinite" and other == [kind, words]
    bundle = Path(words.split("--replay=")[1])
    first, report = failure.replay(bundle)
    assert bundle.parent == folder / "halted" and first in words and not report[first]


@pytest.mark.slow
def test_what_cannot_run_together_is_refused_by_all(trained):
    folder, _, outcomes = trained
    told = {
        "batch": ["train.batch_size=12 is not divisible by the 8 devices in use"] * 2,
        "devices": ["parallel.devices=4: several processes use all devices"] * 2,
        "unshared": ["is another directory for process 1 than for process 0"] * 2,
        "missing": ["data.name: 'digits' on process 0, 'nothing' on process 1"] * 2,
    }
    for name, expected in told.items():
        for (kind, words), part in zip(outcomes[name], expected, strict=True):
            assert kind in ("UserError", "Told") and part in words, words
        assert not (folder / name).exists()
    assert not (folder / "here").exists()


@pytest.mark.slow
def test_the_global_view_over_two_processes(tmp_path):
    """`mesh`, and with fsdp arrays that no process holds whole: evaluated, saved and restored, averages and their
    snapshots included."""
    stopped, _ = stop_and_go_on(tmp_path, {"mesh": MESH, "fsdp": FSDP})
    assert stopped["mesh"] == 2 + 1 + hosts.LAG
    for name, changes in {"mesh": {}, "fsdp": FSDP}.items():
        assert train(settings(**{**BASE, **changes}), tmp_path / f"{name}_reference") == 0
        assert_the_same(tmp_path / name, tmp_path / f"{name}_reference")
    one, other = (latent.load(tmp_path / name, average="posthoc_0.15") for name in ("fsdp", "fsdp_reference"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one.state.params, other.state.params)


def command(workdir, *flags):
    return ["-m", "experiments.train", "--config=configs/vae.py:tiny", f"--workdir={workdir}", *flags]


def joining(port, number):
    return f"--coordinator=127.0.0.1:{port}", "--num_processes=2", f"--process_id={number}"


def refusal(process):
    """The one line that a command ends with when it is refused."""
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 2, errors
    (line,) = errors.splitlines()
    return line


@pytest.mark.slow
def test_a_process_that_never_joins(tmp_path):
    """The other one ends in time, with one line, whether it is the coordinator or not."""
    run = tmp_path / "run"
    with running([command(run, *joining(free_port(), number), "--join_seconds=1") for number in (0, 1)]) as processes:
        for line in map(refusal, processes):
            assert "not 2 processes have joined at --coordinator=127.0.0.1" in line and "--join_seconds=1" in line
    assert not run.exists()


def test_a_job_of_a_cluster_is_joined_and_differing_configs_are_refused(tmp_path):
    """What srun sets in the environment, the keys in which its tasks differ, and a command that is in no job."""
    run, job = tmp_path / "run", {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    job["JAX_COORDINATOR_PORT"] = str(free_port())
    tasks = [{**job, "SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)} for number in (0, 1)]
    commands = [command(run, "--distributed", f"--config.model.latent_dim={dim}") for dim in (2, 3, 2)]
    with running(commands, [*tasks, {}]) as processes:
        *together, outside = map(refusal, processes)
    assert all("model.latent_dim: 2 on process 0, 3 on process 1" in line for line in together), together
    assert "the processes cannot join" in outside and "--coordinator" in outside
    assert not run.exists()


@pytest.mark.slow
def test_the_command_saves_and_exits_on_a_signal(tmp_path):
    port, run = free_port(), tmp_path / "run"
    flags = ("--config.train.steps=400000", "--config.eval.every=0", "--config.checkpoint.every=0")
    with running([command(run, *joining(port, number), *flags) for number in (0, 1)]) as processes:
        while not ((run / "metrics.jsonl").exists() and (run / "metrics.jsonl").stat().st_size):
            assert all(process.poll() is None for process in processes)
        processes[1].send_signal(signal.SIGTERM)
        for process in processes:
            _, errors = process.communicate(timeout=SECONDS)
            assert process.returncode == 143 and not errors, errors
    (step,) = checkpoint.Checkpoints(run).steps()
    assert 0 < step < 400_000


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("host", 2, 0, 1.0), "--coordinator=host must be HOST:PORT"),
        (("host:1", 0, 0, 1.0), "--num_processes=0 must be at least 1"),
        (("host:1", 2, 2, 1.0), r"--process_id=2 must lie in \[0, --num_processes=2\)"),
        (("host:1", 2, 0, 0.0), "--join_seconds=0 must be positive"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags, words):
    with pytest.raises(UserError, match=words):
        hosts.join(*flags)


@pytest.mark.parametrize("make", [resident_feed, streamed_feed])
def test_a_process_reads_its_rows_of_the_same_batches(make):
    """Law 3: together the processes see the batch of one, and index no example of another's."""
    indexed = []

    class Watched(np.ndarray):
        def __getitem__(self, index):
            indexed.extend(np.ravel(index).tolist())
            return super().__getitem__(index)

    x = np.arange(40.0, dtype=np.float32)[:, None].view(Watched)
    split = Split(x, np.arange(40, dtype=np.int32))
    whole = make(split, 3, 8).inputs(4, 2)
    parts = []
    for rows in (slice(0, 4), slice(4, 8)):
        indexed.clear()
        parts.append(make(split, 3, 8, rows=rows).inputs(4, 1))
        if make is streamed_feed:
            read_ahead = streamed_places(split, rows)
            assert set(indexed) <= read_ahead
    for name, array in whole.items():
        np.testing.assert_array_equal(array[:1], np.concatenate([part[name] for part in parts], axis=1))


def streamed_places(split, rows):
    """Examples that stand in these rows of the batches 4 to 4 + what is read ahead."""
    batches = resident_feed(split, 3, 8).inputs(4, 64)["index"]
    return set(batches[:, rows].ravel().tolist())


def test_shares_cover_the_split(monkeypatch):
    """Equally long, in order, none left out: what `joined` puts together and cuts off."""
    for count in (1, 2, 7, 12):
        shares = []
        for number in range(3):
            monkeypatch.setattr(jax, "process_count", lambda: 3)
            monkeypatch.setattr(jax, "process_index", lambda number=number: number)
            shares.append(list(hosts.share(count)))
        assert len({len(share) for share in shares}) == 1
        assert [number for share in shares for number in share][:count] == list(range(count))
