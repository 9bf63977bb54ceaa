"""Logs: metrics.jsonl is complete whatever else fails; progress for pipes and terminals; W&B offline, read back."""

from __future__ import annotations

import io
import json
import re
import struct
import sys

import numpy as np
import pytest

from latent import logs, tracking
from latent.errors import UserError
from latent.logs import Logs, Timing
from latent.tracking import WandbOptions

TIMING = Timing(100, 0.5, 0.005)
DISABLED = WandbOptions(mode="disabled")


def open_logs(workdir, *, start=0, wandb=DISABLED, stream=None, config=None):
    return Logs(
        workdir,
        config=config or {"model": {"latent_dim": 8}},
        total_steps=1000,
        start_step=start,
        batch_size=128,
        wandb=wandb,
        stream=stream or io.StringIO(),
    )


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_hold_what_was_logged(tmp_path):
    with open_logs(tmp_path) as sinks:
        sinks.train(100, {"player/loss": 98.25}, timing=TIMING)
        sinks.evaluation(100, "validation", {"elbo": -99.5})
    train, validation = logs.read(tmp_path / "metrics.jsonl")
    assert train["step"] == 100 and train["split"] == "train" and train["player/loss"] == 98.25
    assert train["steps_per_second"] == 200.0 and train["images_per_second"] == 25_600.0
    assert train["input_wait"] == pytest.approx(0.01)
    assert validation["split"] == "validation" and validation["elbo"] == -99.5


def test_throughput_is_absent_where_nothing_was_timed(tmp_path):
    with open_logs(tmp_path) as sinks:
        sinks.train(2, {"player/loss": 1.0}, timing=Timing(0, 0.0, 0.0))
    assert "steps_per_second" not in logs.read(tmp_path / "metrics.jsonl")[0]


def test_later_and_torn_lines_are_cut_on_resume(tmp_path):
    with open_logs(tmp_path) as sinks:
        for step in (100, 200, 300):
            sinks.train(step, {"loss": float(step)}, timing=TIMING)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 400, "split": "tra')
    assert [line["step"] for line in logs.read(path)] == [100, 200, 300]
    with open_logs(tmp_path, start=200) as sinks:
        assert [line["step"] for line in logs.read(path)] == [100, 200]
        sinks.train(300, {"loss": -1.0}, timing=TIMING)
    assert [line["loss"] for line in logs.read(path)] == [100.0, 200.0, -1.0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_lines_stay_valid_json(tmp_path, value):
    with open_logs(tmp_path) as sinks:
        sinks.train(1, {"loss": value}, timing=TIMING)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert line["loss"] == str(value)


def test_a_pipe_gets_aligned_lines(tmp_path):
    stream = io.StringIO()
    with open_logs(tmp_path, stream=stream) as sinks:
        sinks.train(100, {"vae/loss": 98.31, "vae/kl": 24.1, "vae/gradient_norm": 3.0}, timing=TIMING)
        sinks.train(900, {"vae/loss": 7.5, "vae/kl": 124.123, "vae/gradient_norm": 3.0}, timing=Timing(100, 50.0, 0.0))
    one, two = stream.getvalue().splitlines()
    assert re.match(r"step  100/1000 +200 it/s +25.6k img/s +loss 98.31 +kl 24.1 +wait 1.0%  ETA 0:04$", one)
    assert two.index("kl") == one.index("kl") and two.index("wait") == one.index("wait") and "\x1b" not in one


def test_a_terminal_gets_a_live_bar(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "REDRAW", 0.0)
    monkeypatch.setenv("COLUMNS", "200")
    stream = Terminal()
    with open_logs(tmp_path, stream=stream) as sinks:
        sinks.train(100, {"vae/loss": 98.31}, timing=TIMING)
        sinks.advance(150)
        sinks.message("clear of the bar")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    for part in (
        "150/1000",
        "200 it/s",
        "25.6k img/s",
        "loss 98.31",
        "wait 1.0%",
        "ETA 0:04",
        "GiB",
        "clear of the bar",
    ):
        assert part in text, part


@pytest.mark.parametrize("sink", ["pictures", "progress"])
def test_a_failing_sink_is_switched_off_and_said_once(tmp_path, sink, capsys, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no more paper")

    if sink == "pictures":
        monkeypatch.setattr("PIL.Image.fromarray", fail)
    else:
        monkeypatch.setattr(logs.PlainProgress, "message", fail)
    with open_logs(tmp_path) as sinks:
        for step in (1, 2):
            sinks.images(step, "samples", np.zeros((4, 4, 3), np.uint8))
            sinks.train(step, {"loss": 1.0}, timing=TIMING)
    warnings = [line for line in capsys.readouterr().err.splitlines() if "no more paper" in line]
    assert len(warnings) == 1 and sink in warnings[0]
    assert len(logs.read(tmp_path / "metrics.jsonl")) == 2


def test_pictures_are_files(tmp_path):
    from PIL import Image

    grid = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    with open_logs(tmp_path) as sinks:
        sinks.images(7, "samples", grid)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "images" / "7-samples.png")), grid)


# W&B -----------------------------------------------------------------------------------------------------------


def records(folder):
    """The records of an offline run file: a LevelDB log of protocol buffers behind a 7-byte header."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("*.wandb")
    raw, place, buffer = path.read_bytes(), 7, b""
    while place + 7 <= len(raw):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, size, kind = struct.unpack("<IHB", raw[place : place + 7])
        if kind == 0:
            place += left
            continue
        data = raw[place + 7 : place + 7 + size]
        place += 7 + size
        buffer = data if kind in (1, 2) else buffer + data
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(buffer)
            yield record


def history(folder):
    for record in records(folder):
        if record.WhichOneof("record_type") == "history":
            yield {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}


def test_an_offline_run_can_be_read_back(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE")
    options = WandbOptions(mode="auto", project="toy", group="sweep", name="run")  # no key: goes offline by itself
    for start in (0, 100):
        with open_logs(tmp_path, start=start, wandb=options) as sinks:
            sinks.train(start + 100, {"vae/loss": 98.25 - start}, timing=TIMING)
            sinks.images(start + 100, "samples", np.zeros((4, 4, 3), np.uint8))
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(folders) == 2, "each start leaves its part"
    rows = [row for folder in folders for row in history(folder)]
    scalars = [(row["step"], row["train/vae/loss"]) for row in rows if "train/vae/loss" in row]
    assert scalars == [(100, 98.25), (200, -1.75)]
    pictures = [row for row in rows if any(key.startswith("images/samples") for key in row)]
    assert [row["step"] for row in pictures] == [100, 200]
    assert len(list(folders[0].glob("files/media/images/**/*.png"))) == 1
    runs = [r.run for folder in folders for r in records(folder) if r.WhichOneof("record_type") == "run"]
    assert len({run.run_id for run in runs}) == 1 and runs[0].project == "toy" and runs[0].run_group == "sweep"
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert config["model"] == {"latent_dim": 8}


def test_a_client_that_fails_does_not_stop_the_run(tmp_path, monkeypatch, capsys):
    class Broken:
        def __getattr__(self, name):
            raise RuntimeError("the client is broken")

    monkeypatch.setitem(sys.modules, "wandb", Broken())
    with open_logs(tmp_path, wandb=WandbOptions(mode="offline")) as sinks:
        for step in range(5):
            sinks.train(step, {"loss": 1.0}, timing=TIMING)
    assert len(logs.read(tmp_path / "metrics.jsonl")) == 5
    assert capsys.readouterr().err.count("W&B switched off") == 1


def test_the_environment_decides_only_where_the_config_says_auto(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert tracking._mode("auto") == "offline" and tracking._mode("disabled") == "disabled"
    monkeypatch.delenv("WANDB_MODE")
    assert tracking._mode("auto") == "auto"
    with pytest.raises(UserError, match=r"log.wandb='ofline'.*'offline'"):
        tracking.check_mode("ofline")
