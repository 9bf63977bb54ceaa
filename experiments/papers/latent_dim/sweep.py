"""What the number of latent dimensions does to an autoencoder, a VAE and a beta-VAE, by four measures."""

from __future__ import annotations

from latent.reproduction import Paper, Row, Training

DIMENSIONS = {"smoke": (1, 4), "short": (1, 2, 4, 8, 16, 32, 64, 128)}
DIMENSIONS["full"] = DIMENSIONS["short"]
STEPS = {"smoke": 20, "short": 5000, "full": 50_000}
SEEDS = {"smoke": (0, 1), "short": (0, 1, 2), "full": (0, 1, 2, 3, 4)}
BETA = 4.0
MODELS = {
    "ae": ("AE", {"model.bottleneck": "deterministic", "model.rate": "none"}, "gaussian"),
    "vae": ("VAE", {}, ""),
    "beta": (f"beta-VAE, beta={BETA:g}", {"hparams.autoencoder.beta": BETA}, ""),
}
"""By name: the row, what it overrides, and the density that an autoencoder without a prior draws its codes from."""


def paper(budget: str) -> Paper:
    """Of no single paper: the sweep that shows what latent dimensionality costs and buys."""
    small = budget == "smoke"
    shared = {
        "data.binarise": "none",
        "model.likelihood": "gaussian",
        "model.net.hidden": (512, 256),
        "model.net.activation": "silu",
        "train.steps": STEPS[budget],
        "optimizer.autoencoder.schedule.warmup_steps": STEPS[budget] // 20,
        "eval.metrics": (),
        "eval.every": 0,
        "checkpoint.every": 0,
        "checkpoint.best_metric": "",
        "log.every": STEPS[budget] // 10,
        "log.images": 0,
    }
    trainings, rows = [], []
    for name, (label, changes, density) in MODELS.items():
        for dimension in DIMENSIONS[budget]:
            overrides = {**shared, **changes, "model.latent_dim": dimension}
            trainings.append(Training(f"{name}_{dimension}", "configs/vae.py:mnist", overrides))
            row = Row(f"{label}, {dimension}", (f"{name}_{dimension}",), density=density, series=label, place=dimension)
            rows.append(row)
    return Paper(
        title="Latent dimensionality, MNIST",
        budget=f"{STEPS[budget]:,} steps",
        trainings=tuple(trainings),
        rows=tuple(rows),
        metrics=("reconstruction", "iwae", "probes", "frechet_distance", "active_units"),
        options={
            "iwae": {"num_samples": 20 if small else 500, "chunk": 20 if small else 50, "limit": 20 if small else 1000},
            "probes": {"limit": 500 if small else 5000},
            "frechet_distance": {"num_samples": 300 if small else 10_000},
        },
        columns=("reconstruction_mse", f"iwae_{20 if small else 500}", "knn_probe_5", "fd_lenet_mnist", "active_units"),
        baseline="",
        tested=(),
        seeds=SEEDS[budget],
        axis="latent dimensions",
    )
