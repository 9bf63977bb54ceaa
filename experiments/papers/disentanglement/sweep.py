"""Trains and judges every variant of configs/disentanglement.py with several seeds, and prints the table of the README.

python -m experiments.papers.disentanglement.sweep --workdir=runs/disentanglement
python -m experiments.papers.disentanglement.sweep --table

Runs one after another, each by the ordinary commands; the same command again goes on where it was stopped. What the
runs wrote is gathered into results.jsonl beside this file, and the table is made from that alone. Further words, such
as --config.data.dir=DIRECTORY, go to experiments.train.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.disentanglement import METRICS, VARIANTS
from latent.tables import statistics

RESULTS = Path(__file__).with_name("results.jsonl")
NAMES = tuple(name for name in VARIANTS if name != "tiny")
PLAIN = "vae"
"""What the other variants are compared with."""

ALL_METRICS = (*METRICS, "elbo", "reconstruction", "active_units")
COLUMNS = (
    "mig",
    "mig_sampled",
    "dci_disentanglement",
    "sap",
    "factorvae_score",
    "betavae_score",
    "modularity",
    "elbo",
    "kl",
    "active_units",
)
TESTED = ("mig", "mig_sampled")


def train_and_evaluate(workdir: Path, config: str, variant: str, seed: int, changes: list[str]) -> None:
    """One run to its end and its metrics on the test split. Stops the command where one of them fails."""
    place = f"--workdir={directory(workdir, variant, seed)}"
    words = [f"--config={config}:{variant}", place, f"--config.seed={seed}", "--config.log.wandb=disabled", *changes]
    subprocess.run([sys.executable, "-m", "experiments.train", *words], check=True)
    if not results(workdir, variant, seed):
        metrics = f"--metrics={','.join(ALL_METRICS)}"
        subprocess.run([sys.executable, "-m", "experiments.evaluate", place, metrics], check=True)


def directory(workdir: Path, variant: str, seed: int) -> Path:
    """The work directory of one run."""
    return workdir / f"{variant}-{seed}"


def results(workdir: Path, variant: str, seed: int) -> list[dict[str, Any]]:
    """What the newest evaluation of a run says of the test split, by metric."""
    files = sorted((directory(workdir, variant, seed) / "evaluation").glob("*.json"), key=lambda path: int(path.stem))
    rows = json.loads(files[-1].read_text()) if files else []
    about = {"variant": variant, "seed": seed}
    return [about | row for row in rows if row["protocol"].get("split") == "test" and row["value"] is not None]


def gather(workdir: Path, seeds: int) -> None:
    """Writes the results of all runs that have any, one a line."""
    rows = [row for variant in NAMES for seed in range(seeds) for row in results(workdir, variant, seed)]
    RESULTS.write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))


def values(rows: list[dict[str, Any]], variant: str, metric: str) -> dict[int, float]:
    """{seed: value}."""
    return {row["seed"]: row["value"] for row in rows if row["variant"] == variant and row["name"] == metric}


def cell(found: dict[int, float]) -> str:
    """Mean and half width of the 95% t interval over seeds."""
    if not found:
        return "-"
    summary = statistics.summarise(list(found.values()))
    half = "" if summary.student is None else f" +- {summary.student.high - summary.mean:.2g}"
    return f"{summary.mean:.3g}{half}"


def verdicts(rows: list[dict[str, Any]], variants: list[str], metric: str) -> dict[str, str]:
    """Every variant's difference to the plain VAE, paired by seed, with its 95% t interval, and whether it can be told
    from none at 5% after Holm's correction for the number of variants."""
    plain = values(rows, PLAIN, metric)
    compared = {variant: statistics.compare(values(rows, variant, metric), plain) for variant in variants}
    corrected = statistics.holm([found.p if found else None for found in compared.values()])
    said = {}
    for (variant, found), p in zip(compared.items(), corrected, strict=True):
        if found is None or found.student is None or p is None:
            said[variant] = "untested: too few seeds"
            continue
        verdict = "not separable" if p >= 0.05 else "higher" if found.difference > 0 else "lower"
        said[variant] = f"{found.difference:+.3f} [{found.student.low:+.3f}, {found.student.high:+.3f}] {verdict}"
    return said


def require_one_protocol(rows: list[dict[str, Any]]) -> None:
    """Numbers of one column must have been measured alike."""
    for metric in COLUMNS:
        protocols = {json.dumps(row["protocol"], sort_keys=True) for row in rows if row["name"] == metric}
        if len(protocols) > 1:
            sys.exit(f"error: {metric} was measured by {len(protocols)} protocols; evaluate all runs alike.")


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Markdown: means over seeds with 95% t intervals, then every variant's MIG against the plain VAE's."""
    variants = [variant for variant in NAMES if values(rows, variant, "mig")]
    yield "| variant | seeds | " + " | ".join(COLUMNS) + " |"
    yield "|---" * (len(COLUMNS) + 2) + "|"
    for variant in variants:
        cells = [cell(values(rows, variant, metric)) for metric in COLUMNS]
        yield f"| {variant} | {len(values(rows, variant, 'mig'))} | " + " | ".join(cells) + " |"
    others = [variant for variant in variants if variant != PLAIN]
    said = {metric: verdicts(rows, others, metric) for metric in TESTED}
    yield ""
    yield f"| minus {PLAIN}, paired by seed | " + " | ".join(TESTED) + " |"
    yield "|---" * (len(TESTED) + 1) + "|"
    for variant in others:
        yield f"| {variant} | " + " | ".join(said[metric][variant] for metric in TESTED) + " |"


def main() -> None:
    """Exit code 0, or that of the command that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, help="where the runs are kept")
    parser.add_argument("--seeds", type=int, default=3, help="runs of every variant")
    parser.add_argument("--variants", nargs="+", choices=NAMES, default=NAMES, help="which to train; default all")
    parser.add_argument("--table", action="store_true", help="only print the table of results.jsonl")
    arguments, changes = parser.parse_known_args()
    if not arguments.table:
        if arguments.workdir is None:
            parser.error("--workdir is required (or --table)")
        for seed in range(arguments.seeds):
            for variant in arguments.variants:
                try:
                    train_and_evaluate(arguments.workdir, "configs/disentanglement.py", variant, seed, changes)
                except subprocess.CalledProcessError as error:
                    sys.exit(error.returncode)
                gather(arguments.workdir, arguments.seeds)
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    require_one_protocol(rows)
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
