"""Disentanglement on rendered sprites: --config=configs/disentanglement.py:VARIANT. The paper folder
experiments/papers/disentanglement has the results.

One net, one data set, one number of steps; the variants differ in the objective alone. At 32x32 an image has a quarter
of the pixels of dSprites', so that a weight beside the reconstruction counts four times as much as the same number in
the papers.
"""

from ml_collections import ConfigDict

from configs import base
from configs.vae import family
from latent.config import choose

METRICS = ("mig", "mig_sampled", "dci", "sap", "factorvae_score", "betavae_score", "modularity", "code_dependence")


def vae() -> ConfigDict:
    """The plain VAE, beta = 1: what the others are compared with.

    python -m experiments.train --config=configs/disentanglement.py:vae --workdir=runs/disentanglement/vae
    """
    config = family()
    config.data.name = "dsprites_rendered"
    config.model.latent_dim = 10
    config.model.net.hidden = (400, 400)
    config.model.net.activation = "relu"
    config.train.steps = 40_000
    config.train.batch_size = 128
    config.eval.metrics = ("elbo", "active_units", "reconstruction")
    config.eval.batch_size = 1024
    config.eval.every = 10_000
    config.checkpoint.every = 10_000
    config.checkpoint.best_metric = ""
    config.log.every = 1000
    options = config.eval.options
    options.mig = ConfigDict({"num_points": 10_000, "repeats": 5})
    options.mig_sampled = ConfigDict({"num_points": 0, "num_samples": 1000})
    options.dci = ConfigDict({"num_train": 2000, "num_test": 1000, "repeats": 2})  # 10,000 take half an hour
    options.sap = ConfigDict({"num_train": 10_000, "num_test": 5000, "repeats": 2})
    options.factorvae_score = ConfigDict(
        {"num_points": 10_000, "batch": 64, "num_train": 10_000, "num_test": 5000, "repeats": 5}
    )
    options.betavae_score = ConfigDict(
        {"num_points": 10_000, "batch": 64, "num_train": 10_000, "num_test": 5000, "repeats": 5}
    )
    options.modularity = ConfigDict({"num_train": 10_000, "num_test": 5000, "repeats": 2})
    options.code_dependence = ConfigDict({"limit": 10_000})
    return config


def beta_vae() -> ConfigDict:
    """beta-VAE, Higgins et al. 2017 (ICLR): the KL weighs 4.

    python -m experiments.train --config=configs/disentanglement.py:beta_vae --workdir=runs/disentanglement/beta_vae
    """
    config = vae()
    config.hparams.autoencoder.beta = 4.0
    return config


def beta_tcvae() -> ConfigDict:
    """beta-TCVAE, Chen et al. 2018 (arXiv 1802.04942): beta = 6, a total correlation of weight 5 beside the KL.

    python -m experiments.train --config=configs/disentanglement.py:beta_tcvae --workdir=runs/disentanglement/beta_tcvae
    """
    config = vae()
    config.model.penalties = ("total_correlation",)
    config.hparams.autoencoder.total_correlation = 5.0
    return config


def factor_vae() -> ConfigDict:
    """FactorVAE, Kim & Mnih 2018 (arXiv 1802.05983): the total correlation by a critic, weight 10.

    python -m experiments.train --config=configs/disentanglement.py:factor_vae --workdir=runs/disentanglement/factor_vae
    """
    config = vae()
    config.model.adversary = "factor"
    config.hparams.autoencoder.adversarial = 10.0
    config.model.critic.net.hidden = (400, 400)
    config.optimizer.critic = base.optimizer("adam")
    config.optimizer.critic.options = ConfigDict({"b1": 0.5, "b2": 0.9})
    config.hparams.critic = ConfigDict({"learning_rate": 1e-4})
    return config


def tiny() -> ConfigDict:
    """Four steps of the plain VAE on the coarse grid, judged by every metric that is quick: for tests."""
    config = vae()
    config.data.name = "dsprites_rendered_small"
    config.model.latent_dim = 3
    config.model.net.hidden = (8,)
    config.train.steps = 4
    config.train.batch_size = 16
    config.eval.metrics = tuple(name for name in METRICS if name != "dci")
    config.eval.batch_size = 256
    config.eval.every = 0
    config.checkpoint.every = 2
    config.log.every = 2
    config.log.images = 4
    config.log.wandb = "disabled"
    options = config.eval.options
    options.mig = ConfigDict({"num_points": 25, "repeats": 2})
    options.mig_sampled = ConfigDict({"num_points": 0, "num_samples": 30})
    options.dci = options.sap = options.modularity = ConfigDict({"num_train": 15, "num_test": 10, "repeats": 2})
    options.factorvae_score = options.betavae_score = ConfigDict(
        {"num_points": 25, "batch": 4, "num_train": 40, "num_test": 20, "repeats": 2}
    )
    options.code_dependence = ConfigDict({"limit": 50})
    return config


VARIANTS = {function.__name__: function for function in (vae, beta_vae, beta_tcvae, factor_vae, tiny)}


def get_config(variant: str = "vae") -> ConfigDict:
    """The config of a variant."""
    return choose(VARIANTS, variant)()
