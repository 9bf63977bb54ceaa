"""Classes of MNIST found without labels: by a mixture prior that is trained along, and by clustering codes after it."""

from __future__ import annotations

from latent.reproduction import Paper, Row, Training

STEPS = {"smoke": 20, "short": 20_000, "full": 100_000}
SEEDS = {"smoke": (0, 1), "short": (0, 1, 2, 3, 4), "full": (0, 1, 2, 3, 4)}
MODELS = {
    "ae": ("AE", {"model.bottleneck": "deterministic", "model.rate": "none"}),
    "vae": ("VAE", {}),
    "mixture_10": ("VAE, mixture prior of 10", {"model.prior": "mixture", "model.prior_components": 10}),
    "mixture_16": ("VAE, mixture prior of 16", {"model.prior": "mixture", "model.prior_components": 16}),
}
PUBLISHED = {
    "mixture_10": "0.9446 (VaDE, Jiang et al. 2017); 0.7447 +- 0.1020 (GMVAE with 10, Dilokthanakul et al. 2016)",
    "mixture_16": "0.8480 +- 0.0311 (GMVAE with 16, Dilokthanakul et al. 2016)",
}
DIFFERS = {
    "mixture_10": "VaDE: another net, started from pre-trained weights, fitted and scored on all 70,000, one run. "
    "GMVAE: a convolutional net, a regulariser beside the bound, +- is a standard deviation, clusters named by "
    "their most confident image",
    "mixture_16": "as above; by our one-to-one matching six of sixteen clusters count as wrong",
}


def paper(budget: str) -> Paper:
    """VaDE (Jiang et al. 2017, arXiv 1611.05148) and GMVAE (Dilokthanakul et al. 2016, arXiv 1611.02648): our bound is
    theirs with the component integrated out, from a random start and with nothing beside the bound."""
    steps, small = STEPS[budget], budget == "smoke"
    shared = {
        "data.binarise": "none",
        "model.latent_dim": 10,
        "train.steps": steps,
        "optimizer.autoencoder.schedule.warmup_steps": steps // 40,
        "eval.metrics": (),
        "eval.every": 0,
        "checkpoint.every": 0,
        "checkpoint.best_metric": "",
        "log.every": steps // 10,
        "log.images": 0,
    }
    return Paper(
        title="Clustering MNIST",
        budget=f"{steps:,} steps",
        trainings=tuple(
            Training(name, "configs/vae.py:mnist", {**shared, **changes}) for name, (_, changes) in MODELS.items()
        ),
        rows=tuple(
            Row(
                label,
                (name,),
                published={"mixture_prior_accuracy": PUBLISHED[name]} if name in PUBLISHED else {},
                differs=DIFFERS.get(name, ""),
            )
            for name, (label, _) in MODELS.items()
        ),
        metrics=("clustering", "reconstruction"),
        options={"clustering": {"clusters": 10, "limit": 500 if small else 10_000}},
        columns=tuple(
            f"{method}_{score}" for score in ("accuracy", "nmi", "ari") for method in ("kmeans", "gmm", "mixture_prior")
        ),
        baseline="VAE",
        tested=("kmeans_accuracy", "gmm_accuracy"),
        seeds=SEEDS[budget],
        spread=True,
    )
