"""What samples of an autoencoder gain when its prior is replaced after the training: by a Gaussian, by a mixture, by
diffusion in its latent space; with a GAN of about the same training time beside them."""

from __future__ import annotations

from latent.reproduction import Paper, Row, Training

SETS = {"mnist": "mnist_latent16", "fashion_mnist": "fashion_latent16"}
AS_OF_MNIST = {
    "train.batch_size": 256,
    "data.encode_once": False,
    "hparams.denoiser.label_dropout": 0.1,
    "model.sampling.sampler": "ddim",
    "model.sampling.steps": 50,
}
"""Of both sets' diffusions: `latent_ddpm.py:fashion_mnist` alone is tuned to latents of another first stage."""
LENGTH = {"smoke": 0.03, "short": 1, "full": 5}
"""Trainings are this many times as long as the configs'."""
STEPS = {"vae": 20_000, "diffusion": 20_000, "gan": 8_000}


def paper(budget: str) -> Paper:
    """Two stages (Dai & Wipf 2019; Rombach et al. 2022) against one; on our LeNets' features nothing is published."""
    steps = {family: int(LENGTH[budget] * number) for family, number in STEPS.items()}
    trainings = []
    for name, autoencoder in SETS.items():
        trainings += [
            Training(f"vae_{name}", f"configs/vae.py:{autoencoder}", {"train.steps": steps["vae"]}),
            Training(
                f"diffusion_{name}",
                f"configs/latent_ddpm.py:{name}",
                {"train.steps": steps["diffusion"], **AS_OF_MNIST},
                first_stage=f"vae_{name}",
            ),
            Training(f"gan_{name}", f"configs/gan.py:{name}", {"train.steps": steps["gan"]}),
        ]
    of = lambda family: tuple(f"{family}_{name}" for name in SETS)  # noqa: E731
    return Paper(
        title="Samples of one-stage and two-stage models",
        budget=", ".join(f"{family} {number:,} steps" for family, number in steps.items()),
        trainings=tuple(trainings),
        rows=(
            Row("VAE, its own prior", of("vae")),
            Row("VAE, Gaussian fitted to its codes", of("vae"), density="gaussian"),
            Row("VAE, 10 Gaussians fitted", of("vae"), density="mixture:10"),
            Row("VAE, diffusion of its codes", of("diffusion")),
            Row("GAN", of("gan")),
        ),
        metrics=("frechet_distance",),
        options={"frechet_distance": {"num_samples": 10_000}},
        columns=tuple(f"fd_lenet_{name}" for name in SETS),
        baseline="VAE, its own prior",
        tested=tuple(f"fd_lenet_{name}" for name in SETS),
        seeds=(0, 1, 2),
    )
