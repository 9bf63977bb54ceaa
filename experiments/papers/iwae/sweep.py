"""The gain of the importance-weighted bound over the VAE's, one stochastic layer, by number of samples."""

from __future__ import annotations

from configs.vae import IWAE_EPOCH
from latent.reproduction import Paper, Row, Training

PUBLISHED = 3280
EPOCHS = {"smoke": 0, "short": 40, "full": PUBLISHED}
SMOKE_STEPS = 20
SEEDS = {"smoke": (0,), "short": (0,), "full": (0, 1, 2)}
NLL = {"short": {"num_samples": 5000, "chunk": 50, "limit": 2000}}
NLL |= {"smoke": {"num_samples": 5000, "chunk": 500, "limit": 2}, "full": NLL["short"] | {"limit": 0}}
TABLE_1 = {
    ("elbo", 1): "-86.76",
    ("elbo", 5): "-86.47",
    ("elbo", 50): "-86.35",
    ("iwae", 5): "-85.54",
    ("iwae", 50): "-84.78",
}
"""Log-likelihood of the test images in nats by objective and samples, after all epochs, on all 10,000 test images."""


def paper(budget: str) -> Paper:
    """Burda et al. 2016 (arXiv 1509.00519), Table 1, without their second stochastic layer."""
    epochs, smoke = EPOCHS[budget], budget == "smoke"
    steps = epochs * IWAE_EPOCH or SMOKE_STEPS
    images = "10,000" if budget == "full" else f"first {NLL[budget]['limit']:,}"
    shared = {"train.steps": steps, "log.every": min(IWAE_EPOCH, steps), "log.images": 0}
    shared |= {"eval.every": 0, "eval.metrics": (), "checkpoint.every": 0, "checkpoint.best_metric": ""}
    if smoke:
        shared["eval.batch_size"] = 2
    if budget == "full":
        shared["checkpoint.every"] = 40 * IWAE_EPOCH
    trainings, rows = [], []
    for (objective, count), published in TABLE_1.items():
        name, label = f"{objective}_{count}", "VAE" if objective == "elbo" else "IWAE"
        changes = {"model.objective": objective, "model.num_samples": count}
        trainings.append(Training(name, "configs/vae.py:iwae_paper", {**shared, **changes}))
        rows.append(
            Row(
                f"{label}, k={count}",
                (name,),
                published={"iwae_5000": f"{published} (Burda et al. 2016)"},
                differs=f"{epochs} of {PUBLISHED} epochs; 55,115 training images, not 59,600; {images} test images",
            )
        )
    return Paper(
        title="Importance-weighted autoencoders",
        budget=f"{SMOKE_STEPS} steps"
        if smoke
        else f"{epochs} of {PUBLISHED} epochs for every k, {steps:,} steps of 20",
        trainings=tuple(trainings),
        rows=tuple(rows),
        metrics=("iwae", "active_units"),
        options={"iwae": NLL[budget]},
        columns=("iwae_5000", "active_units"),
        baseline="VAE, k=1",
        tested=("iwae_5000",),
        seeds=SEEDS[budget],
    )
