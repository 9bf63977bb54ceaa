"""A stand-in for `experiments.train` that leaves what a run leaves, in milliseconds: what it does is said by the
member's overrides of `model.latent_dim` (1: fails, 2: is killed at its first start, 3: waits for a signal at its first
start, else: finishes)."""

from __future__ import annotations

import json
import sys
import time

from latent.sweeps import axes, plan

TINY = "configs/vae.py:tiny"

PROGRAM = """
import json, math, os, signal, sys, time
from pathlib import Path
workdir, overrides, steps = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
workdir.mkdir(parents=True, exist_ok=True)
with open(workdir / "starts", "a") as file:
    share = {"cores": sorted(os.sched_getaffinity(0)), "threads": os.environ.get("OMP_NUM_THREADS")}
    file.write(json.dumps(share) + "\\n")
first = len((workdir / "starts").read_text().splitlines()) == 1
kind = overrides.get("model.latent_dim", 9)
if kind == 1:
    sys.exit("it went wrong")
if kind == 2 and first:
    os.kill(os.getpid(), signal.SIGKILL)
if kind == 3 and first:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    (workdir / "waiting").touch()
    time.sleep(60)
rate = overrides.get("hparams.autoencoder.learning_rate", 0.01)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
for step in range(1, steps + 1):
    line = {"step": step, "split": "validation", "elbo": step - 100 * abs(math.log10(rate) + 2)}
    with open(workdir / "metrics.jsonl", "a") as file:
        file.write(json.dumps(line) + "\\n")
    time.sleep(PAUSE)
(workdir / "checkpoints" / str(steps)).mkdir(parents=True)
"""


def make(workdir, **words):
    """A plan of tiny members."""
    return plan.make(TINY, workdir, {}, axes.parse(**words))


def command(pause=0.0):
    """What replaces `Plan.command`."""

    def stub(self, member):
        program = PROGRAM.replace("PAUSE", str(pause))
        return [sys.executable, "-c", program, str(self.directory(member)), json.dumps(member.overrides), "4"]

    return stub


def wait(happened, seconds=60):
    """Waits until something has happened; fails where it does not."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def starts(swept):
    """{member: how often it was started}."""
    files = {member.name: swept.directory(member) / "starts" for member in swept.members}
    return {name: len(file.read_text().splitlines()) if file.exists() else 0 for name, file in files.items()}
