"""Autoencoders whose codes should tell factors of variation apart: --config=configs/disentanglement.py:VARIANT.

All on `dsprites_rendered`, our own rendering after dSprites at 32x32, with an MLP and ten latents: nothing published is
on these images. `experiments/papers/disentanglement` has what 20,000 steps of each give, over three seeds.
"""

from ml_collections import ConfigDict

from configs import base, vae
from latent.config import choose


def _sprites() -> ConfigDict:
    """What all variants share."""
    config = vae.family()
    config.data.name = "dsprites_rendered"
    config.model.latent_dim = 10
    config.model.net.hidden = (512, 512)
    config.model.net.activation = "relu"
    config.train.batch_size = 64
    config.train.steps = 30_000
    config.hparams.autoencoder.learning_rate = 5e-4
    config.eval.metrics = ("elbo", "reconstruction", "active_units", "mig")
    config.eval.options.mig.repeats = 1
    config.eval.every = 10_000
    config.checkpoint.every = 10_000
    config.log.every = 1000
    return config


def plain() -> ConfigDict:
    """The plain VAE that the others are held against.

    Paper: Kingma & Welling 2014 (arXiv 1312.6114). Cost: 5 minutes on 2 CPU cores for 20,000 steps, in a population.
    Not measured at these 30,000 steps; at 20,000: experiments/papers/disentanglement, row "VAE".
    python -m experiments.train --config=configs/disentanglement.py:vae --workdir=runs/sprites
    """
    return _sprites()


def beta_vae() -> ConfigDict:
    """beta-VAE: the KL weighed by beta = 4.

    Paper: Higgins et al. 2017 (ICLR). Cost: 5 minutes on 2 CPU cores for 20,000 steps, in a population.
    Not measured at these 30,000 steps; at 20,000: experiments/papers/disentanglement, row "beta-VAE, beta=4".
    python -m experiments.train --config=configs/disentanglement.py:beta_vae --workdir=runs/sprites_beta
    """
    config = _sprites()
    config.hparams.autoencoder.beta = 4.0
    return config


def factor_vae() -> ConfigDict:
    """FactorVAE: a critic measures the total correlation, weight gamma = 10.

    Paper: Kim & Mnih 2018 (arXiv 1802.05983). Cost: 8 minutes on 2 CPU cores for 20,000 steps.
    Not measured at these 30,000 steps; at 20,000: experiments/papers/disentanglement, row "FactorVAE, gamma=10".
    python -m experiments.train --config=configs/disentanglement.py:factor_vae --workdir=runs/sprites_factor
    """
    config = _sprites()
    config.optimizer.critic = base.optimizer("adam")
    config.optimizer.critic.options = ConfigDict({"b1": 0.5, "b2": 0.9})
    config.hparams.critic = ConfigDict({"learning_rate": 1e-4, "r1": 1.0})
    config.model.adversary = "factor"
    config.model.critic.net.hidden = (256, 256, 256)
    config.hparams.autoencoder.adversarial = 10.0
    return config


def beta_tcvae() -> ConfigDict:
    """beta-TCVAE: the total correlation, estimated in the batch, weighed by beta = 6, the KL by 1.

    Paper: Chen et al. 2018 (arXiv 1802.04942). Cost: 7 minutes on 2 CPU cores for 20,000 steps.
    Not measured at these 30,000 steps; at 20,000: experiments/papers/disentanglement, row "beta-TCVAE, beta=6".
    python -m experiments.train --config=configs/disentanglement.py:beta_tcvae --workdir=runs/sprites_tc
    """
    config = _sprites()
    config.model.penalties = ("total_correlation",)
    config.hparams.autoencoder.total_correlation = 5.0
    return config


def tiny() -> ConfigDict:
    """Four steps on a net of eight units and 6,912 sprites: for tests."""
    config = beta_tcvae()
    config.data.name = "dsprites_rendered_small"
    config.model.latent_dim = 2
    config.model.net.hidden = (8,)
    config.train.steps = 4
    config.train.batch_size = 16
    config.eval.options.mig.num_points = 100
    config.eval.every = 2
    config.checkpoint.every = 2
    config.log.every = 2
    config.log.images = 4
    config.log.wandb = "disabled"
    return config


VARIANTS = {
    "vae": plain,
    "beta_vae": beta_vae,
    "factor_vae": factor_vae,
    "beta_tcvae": beta_tcvae,
    "tiny": tiny,
}


def get_config(variant: str = "vae") -> ConfigDict:
    """The config of a variant."""
    return choose(VARIANTS, variant)()
