"""Logs: metrics.jsonl is complete whatever else fails; progress for pipes and terminals; W&B offline, read back."""

from __future__ import annotations

import io
import json
import re
import struct
import sys
import threading
import time
from pathlib import Path

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
    broken = False

    def isatty(self):
        return True

    def write(self, text):
        if self.broken:
            raise OSError("the terminal is gone")
        return super().write(text)


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 80 columns that is redrawn at every chance."""
    monkeypatch.setattr(logs, "REDRAW", 0.0)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def plain(stream):
    """What a terminal shows, without its control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())


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


@pytest.mark.parametrize("value", [1.0, -99.5, 1.2345e-4, -1.2345e-5, -123456.0, 9.8765e30, float("-inf")])
def test_any_value_keeps_the_columns(value):
    assert logs.shown({"loss": value, "kl": 1.0}).index("kl") == logs.shown({"loss": 0.0, "kl": 1.0}).index("kl")


def test_quantities_never_need_an_exponent():
    assert [logs.quantity(v) for v in (0.5, 412.3, 999.4, 999.6, 52_700.0, 999_700.0, 1.25e6)] == [
        "0.5",
        "412",
        "999",
        "1k",
        "52.7k",
        "1M",
        "1.25M",
    ]


def test_a_terminal_gets_a_live_bar(tmp_path, terminal):
    with open_logs(tmp_path, stream=terminal) as sinks:
        sinks.train(100, {"vae/loss": 98.31, "vae/kl": 24.1, "vae/reconstruction": 74.21}, timing=TIMING)
        sinks.advance(150)
        sinks.message("clear of the bar, runs/[a] [/b]")
    parts = (
        "150/1000",
        "200 it/s",
        "25.6k img/s",
        "ETA 0:04",
        "wait 1.0%",
        "GiB",
        "loss 98.31",
        "reconstruction 74.21",
    )
    for part in (*parts, "clear of the bar, runs/[a] [/b]\n"):
        assert part in plain(terminal), part


def test_the_live_bar_is_not_drawn_after_every_dispatch(tmp_path, terminal, monkeypatch):
    monkeypatch.setattr(logs, "REDRAW", 3600.0)
    with open_logs(tmp_path, stream=terminal) as sinks:
        sinks.train(100, {"loss": 1.0}, timing=TIMING)
        drawn = terminal.getvalue()
        for step in range(100, 200):
            sinks.advance(step)
        assert terminal.getvalue() == drawn


def test_a_terminal_that_cannot_redraw_gets_lines(tmp_path, terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    with open_logs(tmp_path, stream=terminal) as sinks:
        for step in (100, 200):
            sinks.train(step, {"loss": 1.0}, timing=TIMING)
            assert terminal.getvalue().splitlines()[-1].startswith(f"step  {step}/1000"), "at once, not at the end"
    assert "\x1b" not in terminal.getvalue()


def test_a_broken_terminal_gives_back_standard_output(tmp_path, terminal, capsys):
    """rich stands in for sys.stdout while its bar is up; left there, every later print of the process would fail."""
    standard = sys.stdout
    with open_logs(tmp_path, stream=terminal) as sinks:
        assert sys.stdout is not standard
        terminal.broken = True
        for step in (1, 2):
            sinks.train(step, {"loss": 1.0}, timing=TIMING)
        assert sys.stdout is standard
    assert len(logs.read(tmp_path / "metrics.jsonl")) == 2
    assert capsys.readouterr().err.count("the terminal is gone") == 1


def test_without_a_bar_there_are_lines(tmp_path, terminal, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich.live", None)
    with open_logs(tmp_path, stream=terminal) as sinks:
        sinks.train(100, {"loss": 1.0}, timing=TIMING)
    assert terminal.getvalue().startswith("step  100/1000")
    assert capsys.readouterr().err.count("live progress switched off") == 1


def test_a_run_outlives_both_standard_streams(tmp_path, terminal, monkeypatch):
    """`train 2>&1 | head`: the warning about the broken pipe meets a broken pipe."""
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(terminal, "isatty", lambda: False)
    terminal.broken = True
    with open_logs(tmp_path, stream=terminal) as sinks:
        for step in (1, 2):
            sinks.train(step, {"loss": 1.0}, timing=TIMING)
    assert len(logs.read(tmp_path / "metrics.jsonl")) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_stops_the_run(tmp_path):
    """The source of truth does not fail softly, and the other sinks still end."""
    sinks, ended = open_logs(tmp_path), []
    sinks._tracker.close = ended.append
    sinks._file.close()
    sinks._file = open("/dev/full", "a")  # noqa: SIM115 - closed by Logs
    with pytest.raises(OSError, match="No space left"), sinks:
        sinks.train(1, {"loss": 1.0}, timing=TIMING)
    assert ended == [1]


def test_a_cut_that_fails_leaves_the_lines(tmp_path, monkeypatch):
    with open_logs(tmp_path) as sinks:
        sinks.train(100, {"loss": 1.0}, timing=TIMING)
    before = (tmp_path / "metrics.jsonl").read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        logs.cut(tmp_path / "metrics.jsonl", 0)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


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
        sinks.images(8, "grey", grid[..., 0])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "images" / "7-samples.png")), grid)
    grey = np.asarray(Image.open(tmp_path / "images" / "8-grey.png"))
    np.testing.assert_array_equal(grey, np.stack([grid[..., 0]] * 3, axis=-1))


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


def wait_until_written(folder):
    """The client's own process may write for some milliseconds after it says that it has finished."""
    deadline = time.monotonic() + 20.0
    while not any(record.WhichOneof("record_type") == "exit" for record in records(folder)):
        assert time.monotonic() < deadline, "the run file has no end"
        time.sleep(0.02)


def join_client():
    for thread in threading.enumerate():
        if thread.name == "wandb":
            thread.join(20.0)


class FakeClient:
    """Stands for the module `wandb`: `init` fails in the modes named, and its run keeps what is logged."""

    def __init__(self, failing=(), rows_until_failure=None):
        self.failing, self.left = failing, rows_until_failure
        self.modes, self.rows, self.finished = [], [], []

    def login(self, prompt):
        assert not prompt, "a run never waits for a password"
        return True

    def Settings(self, **settings):
        return settings

    def init(self, *, mode, **_):
        self.modes.append(mode)
        if mode in self.failing:
            raise RuntimeError("no network")
        return self

    def define_metric(self, name, step_metric):
        assert (name, step_metric) == ("*", "step")

    def log(self, row):
        if self.left is not None and len(self.rows) == self.left:
            raise RuntimeError("gone in the middle")
        self.rows.append(row)

    def finish(self, exit_code):
        self.finished.append(exit_code)


def test_an_offline_run_can_be_read_back(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setattr(wandb, "login", lambda prompt: False)  # whoever runs this may be logged in
    monkeypatch.delenv("WANDB_MODE")
    options = WandbOptions(mode="auto", project="toy", group="sweep", name="run")  # no key: goes offline by itself
    for start in (0, 100):
        with open_logs(tmp_path, start=start, wandb=options) as sinks:
            sinks.train(start + 100, {"vae/loss": 98.25 - start}, timing=TIMING)
            sinks.images(start + 100, "samples", np.zeros((4, 4, 3), np.uint8))
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(folders) == 2, "each start leaves its part"
    for folder in folders:
        wait_until_written(folder)
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


def test_runs_of_one_process_stay_apart(tmp_path):
    """Members of a population: one that starts while others are open, or starting, is a run of its own."""
    options = WandbOptions(mode="offline")
    trackers, told = [], []
    for number in range(3):
        path = tmp_path / str(number)
        path.mkdir()
        started, tracker = threading.Event(), tracking.Tracker(path, {}, options, told.append)
        tracker._put(lambda run, started=started: started.set())
        assert number == 1 or started.wait(20.0)  # the second and the third start together
        trackers.append(tracker)
    for number, tracker in enumerate(trackers):
        tracker.scalars(number, "train", {"loss": float(number)})
    for tracker in trackers:
        tracker.close(0)
    identifiers = set()
    for number in range(3):
        (folder,) = (tmp_path / str(number) / "wandb").glob("offline-run-*")
        wait_until_written(folder)
        assert [row["train/loss"] for row in history(folder)] == [float(number)]
        identifiers.add(next(r.run.run_id for r in records(folder) if r.WhichOneof("record_type") == "run"))
    assert len(identifiers) == 3 and not told


def test_a_client_that_fails_does_not_stop_the_run(tmp_path, monkeypatch, capsys):
    class Broken:
        def __getattr__(self, name):
            raise RuntimeError("the client is broken")

    monkeypatch.setitem(sys.modules, "wandb", Broken())
    with open_logs(tmp_path, wandb=WandbOptions(mode="offline")) as sinks:
        for step in range(5):
            sinks.train(step, {"loss": 1.0}, timing=TIMING)
    join_client()
    assert len(logs.read(tmp_path / "metrics.jsonl")) == 5
    assert capsys.readouterr().err.count("the client is broken") == 1


def test_a_client_that_fails_in_the_middle_loses_no_line(tmp_path, monkeypatch, capsys):
    client = FakeClient(rows_until_failure=2)
    monkeypatch.setitem(sys.modules, "wandb", client)
    with open_logs(tmp_path, wandb=WandbOptions(mode="offline")) as sinks:
        for step in range(5):
            sinks.train(step, {"loss": 1.0}, timing=TIMING)
    join_client()
    assert [row["step"] for row in client.rows] == [0, 1]
    assert [line["step"] for line in logs.read(tmp_path / "metrics.jsonl")] == list(range(5))
    assert capsys.readouterr().err.count("gone in the middle") == 1


def test_a_dead_network_falls_back_to_offline_in_order(tmp_path, monkeypatch, capsys):
    client = FakeClient(failing=("online",))
    monkeypatch.setitem(sys.modules, "wandb", client)
    monkeypatch.delenv("WANDB_MODE")
    with open_logs(tmp_path, wandb=WandbOptions(mode="auto")) as sinks:
        for step in range(20):
            sinks.train(step, {"loss": float(step)}, timing=TIMING)
    assert client.modes == ["online", "offline"] and client.finished == [0]
    assert [(row["step"], row["train/loss"]) for row in client.rows] == [(step, float(step)) for step in range(20)]
    assert capsys.readouterr().err.count("W&B is offline") == 1


def test_the_environment_decides_only_where_the_config_says_auto(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert tracking._mode("auto") == "offline" and tracking._mode("disabled") == "disabled"
    monkeypatch.delenv("WANDB_MODE")
    assert tracking._mode("auto") == "auto"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with open_logs(tmp_path, wandb=WandbOptions(mode="auto")):
        assert not any(thread.name == "wandb" for thread in threading.enumerate())
    with pytest.raises(UserError, match=r"log.wandb='ofline'.*'offline'"):
        tracking.check_mode("ofline")
