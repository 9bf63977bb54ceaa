"""Measures what the engine promises: the loop against its own bare step, the step against a matmul, the start-up.

python -m scripts.bench [--repeats=5] [--data=digits,mnist]
python -m scripts.bench --streaming=10000,100000,1000000   # the convolutional VAE, sets of so many images

Every figure is a median over repeats with the smallest and largest beside it. Run it on an idle machine: figures of
one run are compared with each other, never with another day's.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import command_line
from latent import build, config, logs
from latent.data import arrays, dataset
from latent.data.arrays import Split
from latent.errors import UserError
from latent.train import Training, alone

STEPS = {"digits": 20_000, "mnist": 5_000, "conv": 200}
"""Steps of one timed loop: some seconds each."""

REPEATED = 200
"""Products of one step that are chained in one timed call."""


def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call, results awaited."""
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def spread(values: list[float], form: str = ".3g") -> str:
    """Median (smallest .. largest)."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} .. {max(values):{form}})"


def matmul_rate(size: int = 2048, calls: int = 4) -> float:
    """GFLOP/s of one large float32 matrix product."""
    a = jnp.asarray(np.random.default_rng(0).normal(size=(size, size)), jnp.float32)
    product = jax.jit(lambda x: x @ x)
    jax.block_until_ready(product(a))
    return max(2e-9 * size**3 / seconds(lambda: product(a)) for _ in range(calls))


def products(training: Training) -> tuple[Callable[[], float], float]:
    """(a function that measures the seconds of one step's matrix products alone, their FLOPs).

    The mathematics asks for three products of every weight matrix with the batch: forward, gradient of the weights,
    gradient of the input; the last is not needed for the first layer.
    """
    batch = training.experiment.config["train"]["batch_size"]
    kernels = [leaf for leaf in jax.tree.leaves(training.state.params) if leaf.ndim == 2]
    first = training.state.params["encoder"]["Dense_0"]["kernel"]
    generator = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(generator.normal(size=shape), jnp.float32)  # noqa: E731
    inputs, outputs = ([normal(batch, kernel.shape[axis]) for kernel in kernels] for axis in (0, 1))

    def chain(weights: list[jax.Array]) -> jax.Array:
        def step(carry: jax.Array, _: None) -> tuple[jax.Array, None]:
            total = carry
            for x, w, y in zip(inputs, weights, outputs, strict=True):
                total += jnp.max((x + carry) @ w) + jnp.max((x + carry).T @ y)
                if w.shape != first.shape:
                    total += jnp.max((y + carry) @ w.T)
            return 1e-20 * total, None

        return jax.lax.scan(step, jnp.float32(0), None, length=REPEATED)[0]

    compiled, weights = jax.jit(chain), [jnp.array(kernel) for kernel in kernels]
    jax.block_until_ready(compiled(weights))
    flops = 2.0 * batch * (3 * sum(kernel.size for kernel in kernels) - first.size)
    return lambda: seconds(lambda: compiled(weights)) / REPEATED, flops


def make(path: str, workdir: Path, steps: int, changes: Mapping[str, Any] | None = None) -> Training:
    """A training of the config `path` that does nothing but train and log, at a constant rate."""
    players = config.load(path).optimizer.keys()
    idle = {
        "train.steps": steps,
        "log.every": steps // 10,
        "log.wandb": "disabled",
        "log.images": 0,
        "eval.metrics": (),
        "eval.every": 0,
        "checkpoint.every": 0,
        "checkpoint.best_metric": "",
    }
    idle |= {f"optimizer.{player}.schedule.name": "constant" for player in players}
    idle |= {f"optimizer.{player}.schedule.warmup_steps": 0 for player in players}
    settings = build.resolved(config.load(path, idle | dict(changes or {})).to_dict())
    return alone(build.build(settings), build.driver(settings), workdir)


def loop_step(name: str, steps: int, **data: object) -> tuple[float, float]:
    """(seconds a step of the whole loop between the second log line and the one before the last, input wait)."""
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as quiet:
        workdir, standard = Path(folder), sys.stdout
        sys.stdout = quiet
        try:
            changes = {f"data.{key}": value for key, value in data.items()}
            with make(f"configs/vae.py:{name}", workdir, steps, changes) as training:
                training.loop()
        finally:
            sys.stdout = standard
        lines = [line for line in logs.read(workdir / "metrics.jsonl") if line["split"] == "train"]
    first, last = lines[0], lines[-2]  # the first holds the compilation, the last the checkpoint at the end
    wait = statistics.mean(line["input_wait"] for line in lines[1:-1])
    return (last["time"] - first["time"]) / (last["step"] - first["step"]), wait


def bare_step(name: str, steps: int) -> tuple[float, float, float]:
    """(seconds a step of the same compiled program called again and again on the same inputs, seconds of its matrix
    products alone, FLOPs of those)."""
    with tempfile.TemporaryDirectory() as folder, make(f"configs/vae.py:{name}", Path(folder), steps) as training:
        products_alone, flops = products(training)
        return dispatched(training, steps), products_alone(), flops


def dispatched(training: Training, steps: int) -> float:
    """Seconds a step of a training's own compiled program, called again and again on the same inputs."""
    dispatch = training.dispatches[0]
    inputs = training.driver.place(training.feed.inputs(0, training.count))
    state, _ = jax.block_until_ready(dispatch(training.state, training.seed, training.resident, inputs))
    calls = max(1, steps // training.count)
    start = time.perf_counter()
    for _ in range(calls):
        state, metrics = dispatch(state, training.seed, training.resident, inputs)
    jax.block_until_ready((state, metrics))
    training.state = state  # the one before was donated
    return (time.perf_counter() - start) / (calls * training.count)


def start_up() -> float:
    """Seconds from process start to the first training step of configs/vae.py:digits, compilation cache as it is."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "experiments.train",
            "--config=configs/vae.py:digits",
            f"--workdir={folder}/run",
        ]
        command += ["--config.train.steps=4", "--config.log.every=1", "--config.eval.every=0"]
        command += ["--config.checkpoint.every=0", "--config.optimizer.autoencoder.schedule.warmup_steps=1"]
        # As from a user's shell: the command sets its memory up by itself, which takes a second start of Python.
        environment = {name: value for name, value in os.environ.items() if name != command_line.ALLOCATOR}
        start = time.time()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        return logs.read(Path(folder, "run", "metrics.jsonl"))[0]["time"] - start


def write_images(folder: Path, size: int) -> None:
    """Random images in the place of MNIST, as many in training as asked for."""
    generator = np.random.default_rng(0)
    place = folder / "mnist" / dataset.source("mnist").version / dataset.ARRAYS

    def pieces() -> Iterator[tuple[str, Split]]:
        for split, count in (("train", size), ("validation", 256), ("test", 256)):
            for start in range(0, count, 10_000):
                rows = min(10_000, count - start)
                x = generator.integers(0, 256, (rows, 28, 28, 1), np.uint8)
                yield split, Split(x, np.full(rows, -1, np.int32))

    arrays.write(place, pieces())


def streaming(sizes: list[int], repeats: int) -> None:
    """Prints how fast the convolutional VAE trains on a set that is read from disk, beside the same set on the device.

    The set lies in a temporary folder in the form every prepared set has (latent/data/arrays.py).
    """
    batch = config.load("configs/vae.py:conv").train.batch_size
    with tempfile.TemporaryDirectory() as temporary:
        folders = {size: Path(temporary, str(size)) for size in sizes}
        for size, folder in folders.items():
            write_images(folder, size)
        ways = {"resident": 2**40, "streamed": 0}
        found = {(size, way): [] for size in sizes for way in ways}
        waits = {size: [] for size in sizes}
        for repeat in range(repeats + 1):
            for (size, way), rates in found.items():
                step, wait = loop_step("conv", STEPS["conv"], dir=str(folders[size]), device_budget=ways[way])
                if repeat:  # the first round compiles and fills caches
                    rates.append(batch / step)
                    waits[size] += [100 * wait] if way == "streamed" else []
    print("configs/vae.py:conv, examples a second\n")
    print("| images in the set | resident | streamed | cost of streaming, % | input wait, % of the step |")
    print("|---|---|---|---|---|")
    for size in sizes:
        resident, streamed = found[size, "resident"], found[size, "streamed"]
        costs = [100 * (one / other - 1) for one, other in zip(resident, streamed, strict=True)]
        rates = f"{spread(resident, ',.0f')} | {spread(streamed, ',.0f')}"
        print(f"| {size:,} | {rates} | {spread(costs)} | {spread(waits[size])} |")


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data", default="digits,mnist")
    parser.add_argument("--streaming", default="", help="sizes of sets: measure streaming and nothing else")
    arguments = parser.parse_args()
    device = jax.devices()[0]
    cores = f"{platform.machine()}, {os.cpu_count()} cores"
    print(f"{len(jax.devices())} x {device.device_kind} ({cores}), jax {jax.__version__}")
    print(f"{arguments.repeats} repeats, interleaved; median (smallest .. largest)\n")
    if arguments.streaming:
        streaming([int(size) for size in arguments.streaming.split(",")], arguments.repeats)
        return 0
    for name in arguments.data.split(","):
        try:
            loop_step(name, STEPS[name] // 10)  # compiles, fills caches
        except UserError as error:
            print(f"{name}: left out: {error}\n")
            continue
        rates, bares, owns, loops, waits = [], [], [], [], []
        for _ in range(arguments.repeats):
            rates.append(matmul_rate())
            bare, own, flops = bare_step(name, STEPS[name])
            loop, wait = loop_step(name, STEPS[name])
            bares.append(bare)
            owns.append(own)
            loops.append(loop)
            waits.append(wait)
        shares = [100 * flops / bare / 1e9 / rate for bare, rate in zip(bares, rates, strict=True)]
        overheads = [100 * (loop / bare - 1) for loop, bare in zip(loops, bares, strict=True)]
        print(f"configs/vae.py:{name}")
        print(f"  large matmul, GFLOP/s           {spread(rates)}")
        print(f"  bare step, ms                   {spread([1e3 * value for value in bares])}")
        print(f"  its matrix products alone, ms   {spread([1e3 * value for value in owns])}")
        print(f"  bare step, % of the matmul rate {spread(shares)}")
        print(f"  step in the loop, ms            {spread([1e3 * value for value in loops])}")
        print(f"  overhead of the loop, %         {spread(overheads)}")
        print(f"  input wait, % of the step       {spread([100 * value for value in waits])}\n")
    start_up()  # fills the compilation cache
    print(f"process start to first step, s    {spread([start_up() for _ in range(arguments.repeats)])}")
    return 0


if __name__ == "__main__":
    command_line.exit_with(main)
