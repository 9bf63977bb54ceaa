"""Prints a table of samplers by steps for one diffusion run: distance, label agreement, seconds for all samples.

python -m scripts.bench_samplers runs/ddpm [--extractor=lenet_mnist] [--num=10000] [--guidance=1]

Every row starts from the same noise. The distance is that of `experiments.evaluate --metrics=frechet_distance` with the
same flags; +- is its bootstrap standard error. Seconds are those of a second drawing, when everything is compiled.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from experiments import command_line
from latent.metrics.passport import Result

ROWS = (
    ("ddim", 250),
    ("ddim", 50),
    ("ddim", 20),
    ("ddpm", 250),
    ("heun", 20),
    ("unipc", 10),
    ("dpmpp_2m", 20),
    ("dpmpp_2m", 10),
)
"""The first is what the others are compared with."""


def measure(run: Any, num: int, extractor: str) -> tuple[list[Result], float]:
    """The distance and, where there are classes, the agreement; and the seconds that `num` samples take."""
    metrics = ("frechet_distance", *(("label_agreement",) if run.model.classes else ()))
    options = {name: {"extractor": extractor, "num_samples": num} for name in metrics}
    results, data = run.evaluate(metrics, "test", options), run.data("test")
    start = time.perf_counter()
    data.samples(run.state, num)
    return results, time.perf_counter() - start


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path, help="a run of a diffusion model")
    parser.add_argument("--extractor", default="lenet_mnist")
    parser.add_argument("--num", type=int, default=10_000)
    parser.add_argument("--guidance", type=float, default=1.0)
    arguments = parser.parse_args()
    command_line.set_up_jax()
    import latent

    run = latent.load(arguments.workdir)
    print("| sampler | steps | Frechet distance | label agreement | seconds |\n|---|---|---|---|---|")
    for sampler, steps in ROWS:
        drawn = run.with_sampling(sampler=sampler, steps=steps, guidance=arguments.guidance)
        results, seconds = measure(drawn, arguments.num, arguments.extractor)
        cells = [f"{result.value:.4g} +- {result.standard_error:.2g}" for result in results]
        cells += ["-"] * (2 - len(cells))
        print(f"| {sampler} | {steps} | {' | '.join(cells)} | {seconds:.1f} |", flush=True)
    return 0


if __name__ == "__main__":
    command_line.exit_with(main)
