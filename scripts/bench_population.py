"""Measures what a population gains: a step of all members against the members one after another, a sweep end to end.

python -m scripts.bench_population [--repeats=5] [--members=16] [--widths=64,128,200]
python -m scripts.bench_population --sweep [--members=16] [--config=configs/vae.py:digits]

The first prints milliseconds a step and member for MLPs of two hidden layers of each width: the population as
`--launcher=population` runs it (a device a core, members mapped), the same on one device, and the members one after
another in a scan over members of scans over steps, which is the same program without the mapping. The second runs the
sweep and then the same runs one after another with `experiments.train`, each twice, the second time with a warm
compilation cache, and prints the times of the second. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import command_line
from latent import build, config, parallel, population, workdir
from latent.step import build_dispatch
from latent.sweeps.launchers.population import set_up
from latent.train import Training
from scripts.bench import seconds, spread

STEPS = 2000
"""Steps of one timed call, of each member."""


def siblings(width: int, members: int) -> list[build.Experiment]:
    """Experiments of configs/vae.py:digits with two hidden layers of `width`, a seed each."""
    changes = {"model.net.hidden": (width, width), "train.steps": STEPS, "eval.every": 0, "checkpoint.every": 0}
    changes |= {"log.every": STEPS, "optimizer.autoencoder.schedule.name": "constant"}
    experiment = build.build(build.resolved(config.load("configs/vae.py:digits", changes).to_dict()))
    return [build.sibling(experiment, {**experiment.config, "seed": seed}) for seed in range(members)]


def of_population(experiments: list[build.Experiment], devices: int) -> Callable[[], float]:
    """A function that measures the seconds of a step and member of the population's own compiled dispatch."""
    abstract = experiments[0].abstract_state()
    driver = parallel.population(devices, len(experiments), abstract, (), mapped=True)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, str(number)) for number in range(len(experiments))]
        runs = workdir.directories(experiments, paths, driver.split)
        training = Training(driver, runs, build.initial_states(experiments, driver.replicated))
    inputs = driver.place(training.feed.inputs(0, training.count))
    dispatch = training.dispatches[0]
    calls = STEPS // training.count

    def measure() -> float:
        def repeated() -> Any:
            for _ in range(calls):
                training.state, metrics = dispatch(training.state, training.seed, training.resident, inputs)
            return training.state, metrics

        return seconds(repeated) / (calls * training.count * len(experiments))

    measure()
    return measure


def one_after_another(experiments: list[build.Experiment], steps: int = 100) -> Callable[[], float]:
    """The same for a scan over the members, in which each takes its steps in a scan."""
    abstract = experiments[0].abstract_state()
    which = population.axes(abstract, ())._replace(step=0)
    feeds = [experiment.feed(abstract) for experiment in experiments]
    dispatch = build_dispatch(experiments[0].recipe, feeds[0].fetch, steps, rolled=True)
    seeds = np.arange(len(experiments), dtype=np.uint32)
    inputs = jax.tree.map(lambda *leaves: np.stack(leaves), *(feed.inputs(0, steps) for feed in feeds))
    states = population.stack(which, jax.device_get(build.initial_states(experiments)))

    def all_members(states: Any, seeds: Any, resident: Any, inputs: Any) -> Any:
        def member(_: None, given: Any) -> tuple[None, Any]:
            state, seed, own = given
            return None, dispatch(state, seed, resident, own)

        return jax.lax.scan(member, None, (states, seeds, inputs))[1]

    compiled = jax.jit(all_members, donate_argnums=0)
    carried = jax.device_put((states, seeds, feeds[0].resident, inputs))

    def measure() -> float:
        nonlocal carried

        def repeated() -> Any:
            nonlocal carried
            for _ in range(STEPS // steps):
                state, metrics = compiled(*carried)
                carried = (state, *carried[1:])
            return carried, metrics

        return seconds(repeated) / (STEPS // steps * steps * len(experiments))

    measure()
    return measure


def steps_table(widths: list[int], members: int, repeats: int) -> None:
    """Prints milliseconds a step and member."""
    devices = len(jax.devices())
    names = [f"population, {devices} devices", "population, 1 device", "members in a scan"]
    print(f"{members} members, ms a step and member, {repeats} repeats, interleaved; median (smallest .. largest)\n")
    print(f"{'width':<7}" + "".join(f"{name:<32}" for name in names) + "gain, 2 columns")
    for width in widths:
        experiments = siblings(width, members)
        measures = [of_population(experiments, devices), of_population(experiments, 1), one_after_another(experiments)]
        rows = [[1e3 * measure() for measure in measures] for _ in range(repeats)]
        columns = list(zip(*rows, strict=True))
        gains = [statistics.median(columns[2]) / statistics.median(column) for column in columns[:2]]
        cells = "".join(f"{spread(list(column)):<32}" for column in columns)
        print(f"{width:<7}{cells}" + "  ".join(f"{gain:.2f}" for gain in gains))


def end_to_end(path: str, members: int) -> None:
    """Prints the seconds from process start to the last evaluation, of a population and of single runs."""

    def sweep(folder: str) -> float:
        words = [path, "--seeds", str(members), f"--workdir={folder}/sweep", "--launcher=population"]
        return timed(["scripts.sweep", *words])

    def singly(folder: str) -> float:
        commands = [[f"--config={path}", f"--workdir={folder}/{n}", f"--config.seed={n}"] for n in range(members)]
        return sum(timed(["experiments.train", *command]) for command in commands)

    def timed(words: list[str]) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.perf_counter() - start

    found = {}
    for name, way in (("population", sweep), ("one after another", singly)):
        for kind in ("cold", "warm"):
            with tempfile.TemporaryDirectory() as folder:
                found[name, kind] = way(folder)
                print(f"{name:<18} {kind}  {found[name, kind]:7.1f} s", flush=True)
    print(f"gain, warm              {found['one after another', 'warm'] / found['population', 'warm']:7.2f}")


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--widths", default="64,128,200")
    parser.add_argument("--sweep", action="store_true", help="the whole sweep instead of single steps")
    parser.add_argument("--config", default="configs/vae.py:digits")
    arguments = parser.parse_args()
    if arguments.sweep:
        end_to_end(arguments.config, arguments.members)
        return 0
    set_up()
    print(f"{len(jax.devices())} x {jax.devices()[0].device_kind} ({os.cpu_count()} cores), jax {jax.__version__}")
    steps_table([int(width) for width in arguments.widths.split(",")], arguments.members, arguments.repeats)
    return 0


if __name__ == "__main__":
    command_line.exit_with(main)
