"""The loop end to end on the tiny config: exact resume, stopping, halting, finished runs (laws 3, 4, 7, 11, 12)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import latent
from latent import checkpoint, config, failure
from latent.errors import NonFinite, UserError
from latent.train import due, train
from tests.harness import digests, lines

ROOT = Path(__file__).parent.parent


def settings(**overrides):
    return config.load("configs/vae.py:tiny", {"log.images": 0, **overrides}).to_dict()


def start(workdir, *flags, **options):
    """Starts the tiny run in a process of its own, on one device as a user's machine has it, compiled as here."""
    command = [
        sys.executable,
        "-m",
        "experiments.train",
        "--config=configs/vae.py:tiny",
        f"--workdir={workdir}",
        *flags,
    ]
    compiled = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
    environment = {**os.environ, "XLA_FLAGS": compiled}
    return subprocess.Popen([*command, *flags], cwd=ROOT, env=environment, text=True, **options)


def test_due():
    assert [step for step in range(1, 11) if due(3, step, 10)] == [3, 6, 9, 10]
    assert [step for step in range(1, 11) if due(0, step, 10)] == [10]


def test_a_run_writes_what_it_promises(tmp_path):
    assert train(settings(**{"log.images": 4}), tmp_path) == 0
    assert {"config.json", "provenance.json", "metrics.jsonl", "checkpoints", "evaluation", "images"} <= {
        path.name for path in tmp_path.iterdir()
    }
    assert [line["step"] for line in lines(tmp_path)] == [2, 4]
    assert {"autoencoder/loss", "autoencoder/kl", "autoencoder/gradient_norm"} <= set(lines(tmp_path)[0])
    assert [line["step"] for line in lines(tmp_path, "validation")] == [2, 4]
    assert sorted(path.name for path in (tmp_path / "images").iterdir())[-1] == "4-samples.png"
    start = json.loads((tmp_path / "provenance.json").read_text())[0]
    assert start["packages"]["jax"] == jax.__version__ and len(start["devices"]) == 8
    assert set(digests(tmp_path)) == {2, 4}


@pytest.mark.slow
def test_a_finished_run_says_so(tmp_path, capsys):
    train(settings(), tmp_path)
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file())
    assert train(settings(), tmp_path) == 0
    assert "finished at step 4" in capsys.readouterr().out
    assert before == sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "optimizer", ["adam", pytest.param("sgd", marks=pytest.mark.slow), pytest.param("lion", marks=pytest.mark.slow)]
)
def test_stopping_and_going_on_is_exact(tmp_path, optimizer):
    """8 steps in one go, or 4, then 8: the same state bit for bit, averages and optimiser included, the same lines."""
    base = {
        "optimizer.autoencoder.name": optimizer,
        "optimizer.autoencoder.schedule.horizon": 8,
        "ema.relative_widths": (0.1,),
        "model.rate": "free_bits",
    }
    assert train(settings(**base, **{"train.steps": 8}), tmp_path / "whole") == 0
    assert train(settings(**base, **{"train.steps": 4}), tmp_path / "parts") == 0
    assert train(settings(**base, **{"train.steps": 8}), tmp_path / "parts") == 0
    assert digests(tmp_path / "whole")[8] == digests(tmp_path / "parts")[8]
    assert lines(tmp_path / "whole") == lines(tmp_path / "parts")
    assert lines(tmp_path / "whole", "validation") == lines(tmp_path / "parts", "validation")


@pytest.mark.slow
def test_lines_after_the_restored_step_are_cut(tmp_path):
    train(settings(**{"train.steps": 8}), tmp_path)
    whole, end = lines(tmp_path), digests(tmp_path)[8]
    os.rename(tmp_path / "checkpoints" / "8", tmp_path / "gone")
    assert train(settings(**{"train.steps": 8}), tmp_path) == 0
    assert lines(tmp_path) == whole and digests(tmp_path)[8] == end


def wait_for(condition, seconds=120):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, "the run did not get that far"
        time.sleep(0.02)


def test_kill_9_and_resume(tmp_path):
    """Law 4 with a real SIGKILL in the middle of a run: the state and the lines of a run that was never stopped."""
    flags = (
        "--config.log.every=100",
        "--config.checkpoint.every=200",
        "--config.eval.every=0",
        "--config.eval.metrics=()",
    )
    flags += (
        "--config.checkpoint.best_metric=",
        "--config.optimizer.autoencoder.schedule.horizon=1000",
    )
    process = start(tmp_path / "run", "--config.train.steps=400000", *flags, stdout=subprocess.DEVNULL)
    wait_for(lambda: list((tmp_path / "run").glob("checkpoints/[0-9]*00/_CHECKPOINT_METADATA")))
    process.kill()
    process.wait()
    reached = checkpoint.Checkpoints(tmp_path / "run").steps()[-1]
    last = reached + 400
    assert 0 < reached < 400_000
    # Both end a little after the kill. A continued run may only grow, so its saved length is shortened by hand.
    saved = config.read(tmp_path / "run")
    config.write({**saved, "train": {**saved["train"], "steps": last}}, tmp_path / "run")
    for name in ("run", "whole"):
        assert start(tmp_path / name, f"--config.train.steps={last}", *flags).wait() == 0
    assert digests(tmp_path / "run")[last] == digests(tmp_path / "whole")[last]
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_saves_and_exits(tmp_path, number, code):
    flags = ("--config.train.steps=4000000", "--config.log.every=1000", "--config.eval.every=0")
    flags += ("--config.checkpoint.every=0",)
    process = start(tmp_path, *flags, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_for(lambda: (tmp_path / "metrics.jsonl").exists() and (tmp_path / "metrics.jsonl").stat().st_size)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    (step,) = checkpoint.Checkpoints(tmp_path).steps()
    assert f"at step {step}" in output and "Traceback" not in output
    assert 0 < step < 4_000_000


def test_non_finite_values_stop_the_run_with_a_bundle(tmp_path):
    """A rate that overflows: exit by NonFinite, the state of the step before, a bundle that repeats the failure."""
    bad = settings(**{"train.steps": 40, "hparams.autoencoder.learning_rate": 1e30, "log.every": 4,
                      "optimizer.autoencoder.name": "sgd"})  # fmt: skip
    with pytest.raises(NonFinite, match=r"step \d+: \S+ is not finite") as error:
        train(bad, tmp_path)
    bundle = Path(str(error.value).split("--replay=")[1])
    record = json.loads((bundle / "failure.json").read_text())
    assert bundle == tmp_path / f"failure-{record['step']}"
    first, report = failure.replay(bundle)
    assert first == record["first_bad"] and not report[first]
    assert all(step <= record["step"] for step in checkpoint.Checkpoints(tmp_path).steps())
    assert report["params/encoder"], "the state that was kept is finite"


def test_another_experiment_in_the_same_place_is_refused(tmp_path):
    train(settings(), tmp_path)
    with pytest.raises(UserError, match=r"model.latent_dim: 2 -> 3"):
        train(settings(**{"model.latent_dim": 3}), tmp_path)


@pytest.mark.slow
def test_a_damaged_checkpoint_costs_one_line_and_the_steps_since(tmp_path):
    train(settings(**{"train.steps": 8, "parallel.devices": 1}), tmp_path)
    end = digests(tmp_path)[8]
    for file in (tmp_path / "checkpoints" / "8").rglob("*"):
        if file.is_file() and "/d/" in str(file):
            file.write_bytes(file.read_bytes()[:10])
    process = start(tmp_path, "--config.train.steps=8", "--config.log.images=0", stderr=subprocess.PIPE)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0 and digests(tmp_path)[8] == end
    assert len(errors.splitlines()) == 1 and "checkpoint 8 cannot be read" in errors, errors


@pytest.mark.slow
def test_evaluation_of_a_damaged_checkpoint_is_refused(tmp_path):
    train(settings(), tmp_path)
    for file in (tmp_path / "checkpoints" / "4").rglob("*"):
        if file.is_file() and "/d/" in str(file):
            file.write_bytes(b"")
    with pytest.raises(UserError, match="--step=4: checkpoint 4 cannot be read"):
        latent.load(tmp_path, step=4)


@pytest.mark.slow
def test_pictures_that_cannot_be_drawn_do_not_stop_the_run(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("out of paint")

    monkeypatch.setattr("latent.pictures.Gallery.draw", fail)
    assert train(settings(**{"log.images": 4}), tmp_path) == 0
    assert capsys.readouterr().err.count("out of paint") == 1


def test_two_processes_cannot_train_in_one_place(tmp_path):
    from latent import provenance

    with provenance.claimed(tmp_path / "run"):
        with pytest.raises(UserError, match="another process"), provenance.claimed(tmp_path / "run"):
            pass
        assert (tmp_path / "run").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_dispatch_size_and_devices_do_not_change_the_run(tmp_path):
    """Laws 2 and 3 through the whole loop: one device at one step a dispatch, eight devices at four."""
    base = {"train.steps": 8, "log.every": 4, "checkpoint.every": 4, "eval.every": 4}
    base |= {"model.rate": "free_bits", "optimizer.autoencoder.name": "sgd"}
    train(settings(**base, **{"train.steps_per_dispatch": 1, "parallel.devices": 1}), tmp_path / "one")
    train(settings(**base, **{"train.steps_per_dispatch": 4, "parallel.devices": 8}), tmp_path / "eight")
    one, eight = latent.load(tmp_path / "one"), latent.load(tmp_path / "eight")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one.state.params, eight.state.params)
    for a, b in zip(lines(tmp_path / "one", "validation"), lines(tmp_path / "eight", "validation"), strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - {"split", "step"}:
            np.testing.assert_allclose(a[key], b[key], rtol=1e-4)
    for a, b in zip(lines(tmp_path / "one"), lines(tmp_path / "eight"), strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - {"split", "step"}:
            np.testing.assert_allclose(a[key], b[key], rtol=1e-4)


def test_evaluation_is_one_code_path(tmp_path):
    """Law 7: what the loop logged at a step is what the checkpoint of that step gives, to the last digit."""
    train(settings(**{"parallel.devices": 1}), tmp_path)
    logged = lines(tmp_path, "validation")[-1]
    results = latent.load(tmp_path).evaluate(split="validation")
    assert {result.name for result in results} == logged.keys() - {"split", "step"}
    for result in results:
        assert result.value == pytest.approx(logged[result.name], rel=1e-6)


def test_the_engine_names_no_family():
    """Law 1, read in the files themselves: no family, player or loss has its name in the loop or in the step."""
    modules = (path for path in (ROOT / "latent" / "models").glob("[a-z]*.py"))
    words = {path.stem for path in modules if "\ndef build(" in path.read_text()}
    words |= {"vae", "gan", "ddpm", "autoencoder", "critic", "generator", "denoiser", "classifier", "diffusion", "elbo"}
    for file in ("train.py", "step.py"):
        text = (ROOT / "latent" / file).read_text().lower()
        assert not [word for word in sorted(words) if word in text], file


def test_pmap_is_literal(tmp_path, monkeypatch):
    """Law 6: the default driver calls jax.pmap with the axis name, and nothing else compiles the training step."""
    calls = []
    original = jax.pmap
    monkeypatch.setattr(jax, "pmap", lambda *a, **k: calls.append(k) or original(*a, **k))
    train(settings(), tmp_path)
    assert len(calls) == 1
    assert calls[0]["axis_name"] == "data" and calls[0]["in_axes"] == (None, None, None, 0)
