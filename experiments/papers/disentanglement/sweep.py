"""Whether pressure on the total correlation separates the factors of sprites better than a plain VAE does."""

from __future__ import annotations

from latent.reproduction import Paper, Row, Training

STEPS = {"smoke": 20, "short": 20_000, "full": 300_000}
SEEDS = {"smoke": (0,), "short": (0, 1, 2), "full": tuple(range(10))}
CONFIG = "configs/disentanglement.py"
MODELS = {
    "vae": ("VAE", f"{CONFIG}:vae", {}),
    "beta_vae": ("beta-VAE, beta=4", f"{CONFIG}:vae", {"hparams.autoencoder.beta": 4.0}),
    "factor_vae": ("FactorVAE, gamma=10", f"{CONFIG}:factor_vae", {}),
    "beta_tcvae": ("beta-TCVAE, beta=6", f"{CONFIG}:beta_tcvae", {}),
}
"""beta-VAE is a VAE of another hparam, so that both make one population."""
SCORES = ("mig", "dci_disentanglement", "sap", "factorvae_score", "betavae_score", "modularity")
OPTIONS = {
    "mig": {"num_points": 10_000, "repeats": 5},
    "dci": {"num_train": 1000, "num_test": 500, "repeats": 1},
    "sap": {"num_train": 2000, "num_test": 1000, "repeats": 1},
    "factorvae_score": {"num_points": 10_000, "num_train": 5000, "num_test": 2000, "repeats": 2},
    "betavae_score": {"num_points": 10_000, "num_train": 2000, "num_test": 1000, "repeats": 2},
    "modularity": {"num_train": 2000, "num_test": 1000, "repeats": 1},
}
"""Few points for the trees and the machines, which fit classifiers of up to 40 classes: they are by far the slowest."""


def paper(budget: str) -> Paper:
    """beta-VAE (Higgins et al. 2017), FactorVAE (Kim & Mnih 2018, arXiv 1802.05983) and beta-TCVAE (Chen et al. 2018,
    arXiv 1802.04942), judged as by Locatello et al. (2019, arXiv 1811.12359); nothing published is on these sprites."""
    steps = STEPS[budget]
    shared = {
        "train.steps": steps,
        "log.every": steps // 10,
        "eval.every": 0,
        "eval.metrics": (),
        "checkpoint.every": 0,
    }
    shared |= {"checkpoint.best_metric": "", "log.images": 0}
    options = {name: dict(values) for name, values in OPTIONS.items()}
    if budget == "smoke":
        for values in options.values():
            values |= {name: 1 if name == "repeats" else max(50, count // 20) for name, count in values.items()}
    return Paper(
        title="Disentanglement",
        budget=f"{steps:,} steps",
        trainings=tuple(Training(name, config, {**shared, **changes}) for name, (_, config, changes) in MODELS.items()),
        rows=tuple(Row(label, (name,)) for name, (label, _, _) in MODELS.items()),
        metrics=("reconstruction", *OPTIONS),
        options=options,
        columns=(*SCORES, "reconstruction_mse"),
        baseline="VAE",
        tested=(*SCORES, "reconstruction_mse"),
        correlated=SCORES,
        seeds=SEEDS[budget],
    )
