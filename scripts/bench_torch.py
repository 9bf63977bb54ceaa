"""Runs training steps and sampling against the same nets in eager PyTorch, in one process, by turns.

python -m scripts.bench_torch [--repeats=5] [--only=vae,unet,dit]        pip install torch

A twin (scripts/torch_twins.py) is made from our arrays, and its outputs are compared with ours before anything is
timed. Both sides draw, preprocess, compute gradients and update; both use all cores. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from latent import build, config, rng
from latent.data.arrays import Split
from latent.train import alone
from scripts import bench

try:
    import torch

    from scripts import torch_twins
except ImportError as error:
    raise SystemExit("error: scripts.bench_torch needs PyTorch, which is not installed: pip install torch") from error

GRID = (8, 8, 4)
"""What the denoisers see: the latents of 64x64 images at f8."""

CLASSES = 10
NETS = {
    "unet": {"channels": (64, 128), "num_blocks": 2, "attention_levels": (1,), "heads": 4},
    "dit": {"width": 256, "depth": 6, "heads": 4, "patch": 2},
}
SAMPLES, SAMPLER_STEPS = 256, 50
TOLERANCE = 1e-4
"""Largest difference of a twin's outputs from ours, relative to their largest value."""


class Race(NamedTuple):
    """What is run against each other: functions that return the seconds of one unit of work."""

    name: str
    ours: Callable[[], float]
    twin: Callable[[], float]


def same(what: str, ours: Any, twin: Any) -> None:
    """Prints how far the outputs are apart. Ends the bench where they are not the same function."""
    ours, twin = np.asarray(ours), twin.detach().numpy()
    apart = float(np.abs(ours - twin).max() / np.abs(ours).max())
    print(f"  {what}: the twin's output differs by {apart:.1e} of the largest value")
    if apart > TOLERANCE:
        raise SystemExit(f"error: {what}: the twin is not the same function as ours.")


def timed(step: Callable[[], Any], calls: int) -> float:
    """Seconds a call of PyTorch's eager step, which returns when it is done."""
    step()
    start = time.perf_counter()
    for _ in range(calls):
        step()
    return (time.perf_counter() - start) / calls


def stirred(params: Any) -> Any:
    """Parameters with noise added, so that layers which start at zero show in a comparison."""
    generator = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: np.asarray(leaf + 0.05 * generator.normal(size=leaf.shape), np.float32), params)


def vae(folder: Path, steps: int = 100) -> list[Race]:
    """The convolutional VAE on MNIST, batch 128."""
    training = bench.make("configs/vae.py:conv", folder / "vae", 10 * steps)
    model, batch = training.recipe.model, training.experiment.config["train"]["batch_size"]
    images = training.experiment.dataset.splits["train"].x
    params = stirred(training.state.params)
    twin, x = torch_twins.ConvVAE(params), np.asarray(images[:64], np.float32) / 255
    latent = jax.jit(model.encode)(params, training.state.extra, x, jax.random.split(jax.random.key(0), 64))
    mean, log_scale = twin.encode(torch.from_numpy(x).permute(0, 3, 1, 2))
    same("encoder, mean", latent.mean, mean)
    same("encoder, log scale", latent.info["log_scale"], log_scale)
    decoded = jax.jit(model.decode)(params, training.state.extra, latent.mean)
    same("decoder", decoded, torch.sigmoid(twin.decode(torch.tensor(np.asarray(latent.mean)))).permute(0, 2, 3, 1))
    step = torch_twins.vae_step(torch_twins.ConvVAE(training.state.params), torch.tensor(images), batch)
    return [
        Race(
            f"conv VAE step, 28x28, batch {batch}",
            lambda: bench.dispatched(training, steps),
            lambda: timed(step, steps),
        )
    ]


def grids(net: str) -> build.Experiment:
    """A denoiser `net` of random grids with labels, which stand for the latents of a first stage."""
    changes = {f"model.net.{key}": value for key, value in NETS[net].items()}
    changes |= {
        "model.net.name": net,
        "model.schedule.name": "continuous_cosine",
        "model.sampling.steps": SAMPLER_STEPS,
    }
    changes |= {"train.batch_size": 128, "optimizer.denoiser.schedule.name": "constant"}
    changes |= {"optimizer.denoiser.schedule.warmup_steps": 0, "log.images": 0, "eval.metrics": (), "eval.every": 0}
    changes |= {"log.wandb": "disabled", "checkpoint.every": 0, "train.steps": 1000, "log.every": 100}
    settings = build.resolved(config.load("configs/latent_ddpm.py:digits", changes).to_dict())
    digits = build.build(settings)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(8192, *GRID)).astype(np.float32)
    splits = {name: Split(x, generator.integers(0, CLASSES, len(x)).astype(np.int32)) for name in digits.dataset.splits}
    spec = digits.spec._replace(shape=GRID, size=len(x), mean=np.zeros(GRID, np.float32), support="real")
    lent = digits._replace(
        dataset=digits.dataset._replace(splits=splits),
        spec=spec,
        recipe=digits.recipe._replace(prepare=lambda raw, streams, train: raw),
    )
    return build.build(settings, neighbour=lent)


def denoiser(net: str, folder: Path, steps: int = 20) -> list[Race]:
    """A training step of a denoiser of 8x8x4 grids, batch 128, and DDIM with 50 steps for 256 samples."""
    experiment = grids(net)
    training = alone(experiment, build.driver(experiment.config), folder / net)
    section, split = experiment.section.model.net, experiment.dataset.splits["train"]
    module = config.select("latent.nets", net, "denoiser", "model.net.name")(section, GRID, CLASSES)
    make = {"unet": torch_twins.UNet, "dit": torch_twins.DiT}[net]
    first = lambda array: torch.from_numpy(np.array(array))  # noqa: E731
    params, x, t = stirred(training.state.params)["denoiser"], split.x[:64], np.linspace(0, 1, 64, dtype=np.float32)
    ours = jax.jit(module.apply)({"params": params}, x, t, split.label[:64])
    flipped = first(x).permute(0, 3, 1, 2)
    same(net, ours, make(params, section)(flipped, first(t), first(split.label[:64])).permute(0, 2, 3, 1))
    twin = make(training.state.params["denoiser"], section)
    channels_first = first(split.x).permute(0, 3, 1, 2).contiguous()
    step = torch_twins.diffusion_step(twin, channels_first, first(split.label).long(), 128)
    asked = np.arange(SAMPLES, dtype=np.int32) % CLASSES
    keys = rng.sample_keys(0, jnp.arange(SAMPLES))

    def sample() -> float:
        state = training.state
        draw = lambda: experiment.recipe.model.sample(state.params, state.extra, keys, asked)  # noqa: E731
        jax.block_until_ready(draw())  # compiles, the first time
        return bench.seconds(draw)

    channels, height, width = GRID[2], *GRID[:2]
    drawn = lambda: torch_twins.ddim(twin, first(asked).long(), (channels, height, width), SAMPLER_STEPS)  # noqa: E731
    return [
        Race(f"{net} step, 8x8x4, batch 128", lambda: bench.dispatched(training, steps), lambda: timed(step, steps)),
        Race(f"{net} DDIM-{SAMPLER_STEPS}, {SAMPLES} samples", sample, lambda: bench.seconds(drawn)),
    ]


RACES = {"vae": vae, "unet": lambda folder: denoiser("unet", folder), "dit": lambda folder: denoiser("dit", folder)}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default=",".join(RACES))
    arguments = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    print(f"{platform.machine()}, {os.cpu_count()} cores, jax {jax.__version__}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        races = [race for name in arguments.only.split(",") for race in RACES[name](Path(folder))]
        print(f"\n{arguments.repeats} repeats by turns; ms, median (smallest .. largest)\n")
        print(f"{'':36} {'ours':22} {'PyTorch':22} PyTorch / ours")
        for race in races:
            race.ours(), race.twin()  # compiles, fills caches
            pairs = [(race.ours(), race.twin()) for _ in range(arguments.repeats)]
            ours, twin = ([1e3 * pair[side] for pair in pairs] for side in (0, 1))
            ratio = bench.spread([b / a for a, b in zip(ours, twin, strict=True)])
            print(f"{race.name:36} {bench.spread(ours):22} {bench.spread(twin):22} {ratio}")


if __name__ == "__main__":
    main()
