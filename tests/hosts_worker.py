"""One of several processes that train together: python -m tests.hosts_worker PORT PROCESSES NUMBER OUT < jobs.

A job is a JSON object on standard input, one a line: `path` of the work directory, `overrides` of the tiny config, and
`signal_at`, the logged step at which process 1 sends SIGTERM to itself (0: never). Where `path` or a value of
`overrides` is a list, each process takes its element. The file OUT gets one line of JSON for each: what `train`
returned, or the class and the words of what it raised.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from experiments import command_line
from latent import config, hosts, workdir
from latent.errors import NonFinite, UserError
from latent.train import train


def main(port: str, processes: str, number: str, out: str) -> None:
    command_line.set_up_jax()
    hosts.join(f"127.0.0.1:{port}", int(processes), int(number), 120)
    with open(out, "w") as file:
        for line in sys.stdin:
            file.write(json.dumps(outcome(json.loads(line), int(number))) + "\n")


def outcome(job, number):
    mine = lambda value: value[number] if isinstance(value, list) else value  # noqa: E731
    overrides = {key: mine(value) for key, value in job["overrides"].items()}
    original = workdir.WorkDirectory.log

    def log(self, step, *rest):
        original(self, step, *rest)
        if number == 1 and step == job.get("signal_at", 0):
            os.kill(os.getpid(), signal.SIGTERM)

    workdir.WorkDirectory.log = log
    try:
        return train(config.load("configs/vae.py:tiny", overrides).to_dict(), Path(mine(job["path"])))
    except (UserError, NonFinite) as error:
        return [type(error).__name__, str(error)]
    finally:
        workdir.WorkDirectory.log = original


if __name__ == "__main__":
    main(*sys.argv[1:])
