"""What a VampPrior gains over the Gaussian prior: the two rows of the Exemplar VAE's table that need no exemplars."""

from __future__ import annotations

from latent.reproduction import Paper, Row, Training

EPOCH = 551
"""Steps: our training splits of 55,115 (MNIST) and about as many images, at batch 100; the paper's have 50,000."""
PUBLISHED = 2000
EPOCHS = {"smoke": 0, "short": 50, "full": PUBLISHED}
SMOKE_STEPS = 20
SEEDS = {"smoke": (0,), "short": (0, 1, 2), "full": (0, 1, 2)}
NLL = {"short": {"num_samples": 5000, "chunk": 50, "limit": 2000}}
NLL |= {"smoke": {"num_samples": 5000, "chunk": 500, "limit": 2}, "full": NLL["short"] | {"limit": 0}}
SETS = ("mnist", "fashion_mnist")
PRIORS = {
    "standard_normal": ("VAE, Gaussian prior", ("-84.45 +- 0.12", "-228.70 +- 0.15")),
    "vamp": ("VAE, VampPrior, 500 pseudo-inputs", ("-82.43 +- 0.06", "-227.35 +- 0.05")),
}
"""By prior: the row, and the published log-likelihood of test images in nats on both sets."""


def paper(budget: str) -> Paper:
    """Norouzi et al. 2020 (arXiv 2004.04795), Table 1; VampPrior: Tomczak & Welling 2018 (arXiv 1705.07120)."""
    epochs, smoke = EPOCHS[budget], budget == "smoke"
    warmup = 100 if budget == "full" else epochs // 10
    trainings, rows = [], []
    for prior, (label, published) in PRIORS.items():
        trainings += [
            Training(f"{prior}_{data}", f"configs/vae.py:{data}", _overrides(budget, prior, warmup)) for data in SETS
        ]
        numbers = {f"iwae_5000 {data}": number for data, number in zip(SETS, published, strict=True)}
        rows.append(
            Row(
                label,
                tuple(f"{prior}_{data}" for data in SETS),
                published={column: f"{number} (Norouzi et al. 2020)" for column, number in numbers.items()},
                differs=f"{epochs} of at most {PUBLISHED:,} epochs, KL warm-up of {warmup}, not 100; gradients not "
                "normalised; our splits; Glorot start",
            )
        )
    return Paper(
        title="Learned priors",
        budget=f"{SMOKE_STEPS} steps" if smoke else f"{epochs} of at most {PUBLISHED} epochs of {EPOCH} steps",
        trainings=tuple(trainings),
        rows=tuple(rows),
        metrics=("iwae", "active_units"),
        options={"iwae": NLL[budget]},
        columns=tuple(f"{name} {data}" for name in ("iwae_5000", "active_units") for data in SETS),
        baseline="VAE, Gaussian prior",
        tested=tuple(f"iwae_5000 {data}" for data in SETS),
        seeds=SEEDS[budget],
        by_data=True,
        step="best" if budget == "full" else "latest",
    )


def _overrides(budget: str, prior: str, warmup: int) -> dict[str, object]:
    changes = {
        "data.binarise": "seeded",
        "train.batch_size": 100,
        "train.published_epochs": PUBLISHED,
        "train.steps": EPOCHS[budget] * EPOCH or SMOKE_STEPS,
        "model.latent_dim": 40,
        "model.net.name": "gated_mlp",
        "model.net.hidden": (300, 300),
        "model.prior": prior,
        "model.kl_warmup_steps": warmup * EPOCH,
        "optimizer.autoencoder.schedule.name": "constant",
        "optimizer.autoencoder.schedule.warmup_steps": 0,
        "hparams.autoencoder.learning_rate": 5e-4,
        "eval.metrics": ("elbo",),
        "eval.every": 5 * EPOCH if budget == "full" else 0,
        "checkpoint.every": 5 * EPOCH if budget == "full" else 0,
        "log.every": EPOCH if EPOCHS[budget] else SMOKE_STEPS,
        "log.images": 0,
    }
    if budget == "smoke":
        changes["eval.batch_size"] = 2
    return changes | ({"model.prior_components": 500} if prior == "vamp" else {})
