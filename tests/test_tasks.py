"""Tasks: each after what it waits for, in its share of the machine; what fails stops only those that wait for it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from latent import tasks
from latent.sweeps.launchers.local import shares
from latent.tasks import Task

PLACES = shares(2, [0], [])


def task(folder, name, code, *after):
    return Task(name, [sys.executable, "-c", code], folder / f"{name}.log", after)


def test_a_failure_stops_those_that_wait_for_it_and_nobody_else(tmp_path):
    said = []
    found = tasks.run(
        [
            task(tmp_path, "waits", "print(1)", "fails"),
            task(tmp_path, "fails", "print('the reason'); raise SystemExit(3)"),
            task(tmp_path, "follows", "import pathlib, sys; sys.exit(0)", "leads"),
            task(tmp_path, "leads", "print(1)"),
        ],
        PLACES,
        said.append,
    )
    assert found == 3
    assert said.index("finished  leads") < said.index("started   follows")
    assert any("the reason" in line for line in said) and not any("waits" in line for line in said)


def test_a_signal_is_passed_on(tmp_path):
    ready = tmp_path / "ready"
    code = f"""
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
pathlib.Path({str(ready)!r}).touch()
time.sleep(60)
"""

    def stop():
        while not ready.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    assert tasks.run([task(tmp_path, "long", code), task(tmp_path, "next", "", "long")], PLACES, print) == 143
