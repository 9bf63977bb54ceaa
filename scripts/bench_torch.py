"""Runs training steps and sampling against the same nets in eager PyTorch, in one process, by turns.

python -m scripts.bench_torch [--repeats=5] [--only=vae,unet,dit] [--precision=float32] [--steps=N] [--samples=256]

A twin (scripts/torch_twins.py) is made from our arrays, and its outputs are compared with ours before anything is
timed. Both sides draw, preprocess, compute gradients and update, on the device that JAX finds: all cores, or one GPU,
whose work is awaited before a clock is read. Products are of float32 or, on both sides, of TF32. It needs PyTorch
(pip install torch), for a GPU one that comes with CUDA, and an idle machine. `--repeats=1 --steps=2 --samples=16` shows
in little that everything runs.
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

from experiments import command_line
from latent import build, config, rng
from latent.data.arrays import Split
from latent.diffusion import sampling
from latent.train import alone
from latent.types import Condition
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
SAMPLER_STEPS = 50
TOLERANCE = 1e-4
"""Largest difference of a twin's outputs from ours, relative to their largest value, where products are of float32."""

LOOSER = {"float32": 1.0, "tf32": 100.0}
"""The precisions, and how much more a difference may be: TF32 keeps 10 bits of a factor."""


class Settings(NamedTuple):
    """What the command line chose: training steps a timing (0: each race's own number), samples, precision."""

    steps: int
    samples: int
    precision: str


class Race(NamedTuple):
    """What is run against each other: functions that return the seconds of one unit of work."""

    name: str
    ours: Callable[[], float]
    twin: Callable[[], float]


def device() -> torch.device:
    """PyTorch's name of the device that JAX computes on."""
    platform_name = jax.default_backend()
    if platform_name == "cpu":
        return torch.device("cpu")
    if platform_name == "gpu" and torch.cuda.is_available():
        return torch.device("cuda")
    found = "a GPU" if torch.cuda.is_available() else "no GPU"
    raise SystemExit(f"error: JAX computes on {platform_name}, PyTorch finds {found}: no race on one device.")


def set_precision(name: str) -> None:
    """What both sides make products of: float32, or TF32 where the device has it."""
    jax.config.update("jax_default_matmul_precision", {"float32": "highest", "tf32": "tensorfloat32"}[name])
    torch.set_float32_matmul_precision({"float32": "highest", "tf32": "high"}[name])
    torch.backends.cudnn.allow_tf32 = name == "tf32"
    torch.backends.cudnn.benchmark = True


def given(array: Any) -> torch.Tensor:
    """An array as a tensor on the device of the race."""
    return torch.from_numpy(np.array(array)).to(device())


def same(what: str, ours: Any, twin: Any, tolerance: float) -> None:
    """Prints how far the outputs are apart. Ends the bench where they are not the same function."""
    ours, twin = np.asarray(ours), twin.detach().cpu().numpy()
    apart = float(np.abs(ours - twin).max() / np.abs(ours).max())
    print(f"  {what}: the twin's output differs by {apart:.1e} of the largest value")
    if apart > tolerance:
        raise SystemExit(f"error: {what}: the twin is not the same function as ours.")


def awaited() -> None:
    """Returns when PyTorch's device has nothing left to do; on CPU a call returns when it is done."""
    if device().type == "cuda":
        torch.cuda.synchronize()


def timed(step: Callable[[], Any], calls: int) -> float:
    """Seconds a call of PyTorch's eager step, results awaited."""
    step()
    awaited()
    start = time.perf_counter()
    for _ in range(calls):
        step()
    awaited()
    return (time.perf_counter() - start) / calls


def stirred(params: Any) -> Any:
    """Parameters with noise added, so that layers which start at zero show in a comparison."""
    generator = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: np.asarray(leaf + 0.05 * generator.normal(size=leaf.shape), np.float32), params)


def vae(folder: Path, settings: Settings) -> list[Race]:
    """The convolutional VAE on MNIST, batch 128."""
    steps, tolerance = settings.steps or 100, TOLERANCE * LOOSER[settings.precision]
    training = bench.make("configs/vae.py:conv", folder / "vae", 10 * steps)
    model, batch = training.recipe.model, training.experiment.config["train"]["batch_size"]
    images = training.experiment.dataset.splits["train"].x
    params = stirred(training.state.params)
    twin, x = torch_twins.ConvVAE(params).to(device()), np.asarray(images[:64], np.float32) / 255
    latent = jax.jit(model.encode)(params, training.state.extra, x, jax.random.split(jax.random.key(0), 64))
    mean, log_scale = twin.encode(given(x).permute(0, 3, 1, 2))
    same("encoder, mean", latent.mean, mean, tolerance)
    same("encoder, log scale", latent.info["log_scale"], log_scale, tolerance)
    decoded = jax.jit(model.decode)(params, training.state.extra, latent.mean)
    same("decoder", decoded, torch.sigmoid(twin.decode(given(latent.mean))).permute(0, 2, 3, 1), tolerance)
    step = torch_twins.vae_step(torch_twins.ConvVAE(training.state.params).to(device()), given(images), batch)
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


def denoiser(net: str, folder: Path, settings: Settings) -> list[Race]:
    """A training step of a denoiser of 8x8x4 grids, batch 128, and DDIM with 50 steps for all samples."""
    steps, tolerance = settings.steps or 20, TOLERANCE * LOOSER[settings.precision]
    experiment = grids(net)
    training = alone(experiment, build.driver(experiment.config), folder / net)
    section, split = experiment.section.model.net, experiment.dataset.splits["train"]
    module = config.select("latent.nets", net, "denoiser", "model.net.name")(section, GRID, CLASSES)
    make = {"unet": torch_twins.UNet, "dit": torch_twins.DiT}[net]
    params, x, t = stirred(training.state.params), split.x[:64], np.linspace(0, 1, 64, dtype=np.float32)
    stirred_twin = make(params["denoiser"], section, GRID[:2]).to(device())
    ours = jax.jit(module.apply)({"params": params["denoiser"]}, x, t, Condition(split.label[:64]))
    theirs = stirred_twin(given(x).permute(0, 3, 1, 2), given(t), given(split.label[:64]))
    same(net, ours, theirs.permute(0, 2, 3, 1), tolerance)
    twin = make(training.state.params["denoiser"], section, GRID[:2]).to(device())
    channels_first = given(split.x).permute(0, 3, 1, 2).contiguous()
    step = torch_twins.diffusion_step(twin, channels_first, given(split.label).long(), 128)

    asked = np.arange(settings.samples, dtype=np.int32) % CLASSES
    keys = rng.sample_keys(0, jnp.arange(settings.samples))
    labels, noise = (
        given(asked).long(),
        given(sampling.start(keys, GRID, jnp.ones(()))).permute(0, 3, 1, 2).contiguous(),
    )

    def ours_of(params: Any) -> jax.Array:
        return experiment.recipe.model.sample(params, training.state.extra, keys, asked)

    def sample() -> float:
        jax.block_until_ready(ours_of(training.state.params))  # compiles, the first time
        return bench.seconds(lambda: ours_of(training.state.params))

    # A difference of one call grows over the steps.
    theirs = torch_twins.ddim(stirred_twin, labels, noise, SAMPLER_STEPS)
    same(f"{net} DDIM-{SAMPLER_STEPS}", ours_of(params), theirs.permute(0, 2, 3, 1), 10 * tolerance)
    drawn = lambda: torch_twins.ddim(twin, labels, noise, SAMPLER_STEPS)  # noqa: E731
    return [
        Race(f"{net} step, 8x8x4, batch 128", lambda: bench.dispatched(training, steps), lambda: timed(step, steps)),
        Race(f"{net} DDIM-{SAMPLER_STEPS}, {settings.samples} samples", sample, lambda: timed(drawn, 1)),
    ]


RACES = {
    "vae": vae,
    "unet": lambda folder, settings: denoiser("unet", folder, settings),
    "dit": lambda folder, settings: denoiser("dit", folder, settings),
}


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default=",".join(RACES), help=f"of {', '.join(RACES)}")
    parser.add_argument("--precision", default="float32", choices=LOOSER)
    parser.add_argument("--steps", type=int, default=0, help="training steps a timing; 0: 100 of vae, 20 of the others")
    parser.add_argument("--samples", type=int, default=256, help="of DDIM")
    arguments = parser.parse_args()
    if unknown := set(arguments.only.split(",")) - set(RACES):
        parser.error(f"--only={arguments.only}: {', '.join(sorted(unknown))} is none of {', '.join(RACES)}")
    torch.set_num_threads(os.cpu_count() or 1)
    set_precision(arguments.precision)
    where = f"{os.cpu_count()} cores" if device().type == "cpu" else torch.cuda.get_device_name()
    versions = f"jax {jax.__version__}, torch {torch.__version__}"
    print(f"{platform.machine()}, {where}, {versions}, products of {arguments.precision} on both sides")
    settings = Settings(arguments.steps, arguments.samples, arguments.precision)
    with tempfile.TemporaryDirectory() as folder:
        races = [race for name in arguments.only.split(",") for race in RACES[name](Path(folder), settings)]
        print(f"\n{arguments.repeats} repeats by turns; ms, median (smallest .. largest)\n")
        print(f"{'':36} {'ours':22} {'PyTorch':22} PyTorch / ours")
        for race in races:
            race.ours(), race.twin()  # compiles, fills caches
            pairs = [(race.ours(), race.twin()) for _ in range(arguments.repeats)]
            ours, twin = ([1e3 * pair[side] for pair in pairs] for side in (0, 1))
            ratio = bench.spread([b / a for a, b in zip(ours, twin, strict=True)])
            print(f"{race.name:36} {bench.spread(ours):22} {bench.spread(twin):22} {ratio}")
    return 0


if __name__ == "__main__":
    command_line.exit_with(main)
