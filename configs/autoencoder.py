"""Autoencoders beyond the plain VAE: --config=configs/autoencoder.py:VARIANT. One choice on each axis makes a paper.

All on grey 28x28 images with the convolutional net at latent_dim 16 unless they say otherwise; the likelihood of grey
values is a Gaussian of fixed scale 0.1, so that reconstruction errors compare between variants. Expected numbers are of
one run on the test split; +- is about three standard errors, for counts a unit or two. Costs are steps over the rate of
the first 600, without evaluation.
"""

from ml_collections import ConfigDict

from configs import base, vae
from latent.config import choose


def images() -> ConfigDict:
    """What most variants share, and the first stages: MNIST, grey, a small convolutional net."""
    config = vae.family()
    config.data.name = "mnist"
    base.judge_samples(config, "lenet_mnist", 10_000)
    config.model.latent_dim = 16
    config.model.likelihood = "gaussian"
    config.model.net.name = "convnet"
    config.model.net.hidden = (256,)
    config.model.net.activation = "silu"
    config.train.steps = 5000
    config.optimizer.autoencoder.schedule.name = "cosine"
    config.optimizer.autoencoder.schedule.warmup_steps = 200
    config.eval.metrics = ("active_units", "reconstruction")
    config.eval.every = 1000
    config.checkpoint.every = 1000
    config.checkpoint.best_metric = "reconstruction_mse"
    config.checkpoint.best_mode = "min"
    config.log.every = 100
    return config


def _deterministic() -> ConfigDict:
    config = images()
    config.model.bottleneck = "deterministic"
    config.model.rate = "none"
    return config


def add_critic(config: ConfigDict, learning_rate: float = 2e-4) -> ConfigDict:
    """The critic's player: Adam without momentum, as adversarial games are usually trained."""
    config.optimizer.critic = base.optimizer("adam")
    config.optimizer.critic.options = ConfigDict({"b1": 0.5, "b2": 0.9})
    config.hparams.critic = ConfigDict({"learning_rate": learning_rate, "r1": 1.0})
    return config


def rae() -> ConfigDict:
    """RAE-GP, Ghosh et al. 2020 (arXiv 1903.12436): a deterministic autoencoder, |z|^2 and the decoder's gradient.

    It has no prior, hence no samples of its own.
    Expected: active_units 16 +- 1, reconstruction_mse 0.0061 +- 0.0003.
    Cost: 5 minutes on 2 CPU cores.
    python -m experiments.train --config=configs/autoencoder.py:rae --workdir=runs/rae
    """
    config = _deterministic()
    config.model.penalties = ("latent_norm", "gradient_penalty")
    return config


def wae() -> ConfigDict:
    """WAE-MMD, Tolstikhin et al. 2018 (arXiv 1711.01558): a deterministic code whose distribution matches N(0, I).

    Expected: active_units 16 +- 1, reconstruction_mse 0.0071 +- 0.0003.
    Cost: 3 minutes on 2 CPU cores.
    python -m experiments.train --config=configs/autoencoder.py:wae --workdir=runs/wae
    """
    config = _deterministic()
    config.model.penalties = ("mmd",)
    config.hparams.autoencoder.mmd = 1000.0
    return config


def info_vae() -> ConfigDict:
    """InfoVAE, Zhao et al. 2019 (arXiv 1706.02262): no KL (alpha = 1) and a strong MMD to N(0, I).

    Expected: elbo 707.4 +- 5.5, active_units 16 +- 1, reconstruction_mse 0.0070 +- 0.0003.
    Cost: 3 minutes on 2 CPU cores.
    python -m experiments.train --config=configs/autoencoder.py:info_vae --workdir=runs/info
    """
    config = images()
    config.model.penalties = ("mmd",)
    config.hparams.autoencoder.beta = 0.0
    config.hparams.autoencoder.mmd = 1000.0
    config.eval.metrics = ("elbo", "active_units", "reconstruction")
    return config


def aae() -> ConfigDict:
    """Adversarial autoencoder, Makhzani et al. 2016 (arXiv 1511.05644): a critic pulls the codes to N(0, I).

    Expected: active_units 16 +- 1, reconstruction_mse 0.0065 +- 0.0003.
    Cost: 4 minutes on 2 CPU cores.
    python -m experiments.train --config=configs/autoencoder.py:aae --workdir=runs/aae
    """
    config = add_critic(_deterministic())
    config.model.adversary = "latent"
    config.model.critic.loss = "non_saturating"
    config.model.critic.r1 = True
    config.hparams.autoencoder.adversarial = 50.0
    return config


def vq() -> ConfigDict:
    """VQ-VAE, van den Oord et al. 2017 (arXiv 1711.00937): 8 codes of 8 dimensions from a codebook of 128.

    Expected: codebook_perplexity 123.3 +- 2.0, codebook_used 128 +- 1, reconstruction_mse 0.0094 +- 0.0003.
    Cost: 3 minutes on 2 CPU cores.
    python -m experiments.train --config=configs/autoencoder.py:vq --workdir=runs/vq
    """
    config = _deterministic()
    config.model.bottleneck = "vq"
    config.model.latent_dim = 64
    config.model.codebook.groups = 8
    config.eval.metrics = ("codebook", "reconstruction")
    return config


def fsq() -> ConfigDict:
    """FSQ, Mentzer et al. 2024 (arXiv 2309.15505): 8 codes on a grid of 8 x 5 x 5 levels, nothing to train.

    Expected: codebook_perplexity 185.8 +- 3.0, codebook_used 200 +- 1, reconstruction_mse 0.0086 +- 0.0003.
    Cost: 3 minutes on 2 CPU cores.
    python -m experiments.train --config=configs/autoencoder.py:fsq --workdir=runs/fsq
    """
    config = _deterministic()
    config.model.bottleneck = "fsq"
    config.model.levels = (8, 5, 5)
    config.model.latent_dim = 24
    config.eval.metrics = ("codebook", "reconstruction")
    return config


def vamp() -> ConfigDict:
    """VampPrior, Tomczak & Welling 2018 (arXiv 1705.07120): 500 pseudo-inputs, the MLP of `vae.py:mnist` at 40 latents.

    Paper: -85.57 with static binarisation, two gated layers of 300 and up to 2,000 epochs; not this row's protocol.
    Expected: elbo -93.9 +- 0.8, kl 21.3 +- 0.3, iwae_50 -90.6 +- 2.5, active_units 21 +- 2.
    Cost: 3 minutes on 2 CPU cores.
    python -m experiments.train --config=configs/autoencoder.py:vamp --workdir=runs/vamp
    """
    config = vae.mnist()
    config.model.latent_dim = 40
    config.model.prior = "vamp"
    config.model.prior_components = 500
    return config


def clustering() -> ConfigDict:
    """VaDE, Jiang et al. 2017 (arXiv 1611.05148): a learned mixture of ten Gaussians as prior, without pre-training.

    Expected: elbo -101.0 +- 0.9, kl 17.4 +- 0.3, iwae_50 -98.1 +- 2.9, active_units 10 +- 1.
    Cost: 1 minute on 2 CPU cores.
    python -m experiments.train --config=configs/autoencoder.py:clustering --workdir=runs/clustering
    """
    config = vae.mnist()
    config.model.latent_dim = 10
    config.model.prior = "mixture"
    return config


def beta_tcvae() -> ConfigDict:
    """beta-TCVAE, Chen et al. 2018 (arXiv 1802.04942): the total correlation weighed by beta = 6, the KL by 1.

    Expected: elbo -245.7 +- 2.3, kl 8.55 +- 0.20, active_units 6 +- 1, reconstruction_mse 0.0171 +- 0.0004.
    Cost: 1 minute on 2 CPU cores.
    python -m experiments.train --config=configs/autoencoder.py:beta_tcvae --workdir=runs/tc
    """
    config = vae.fashion_mnist()
    config.model.latent_dim = 10
    config.model.penalties = ("total_correlation",)
    return config


def factor_vae() -> ConfigDict:
    """FactorVAE, Kim & Mnih 2018 (arXiv 1802.05983): a critic measures the total correlation, weight gamma = 10.

    Expected: elbo -243.8 +- 2.3, kl 12.86 +- 0.30, active_units 7 +- 1, reconstruction_mse 0.0156 +- 0.0004.
    Cost: 2 minutes on 2 CPU cores.
    python -m experiments.train --config=configs/autoencoder.py:factor_vae --workdir=runs/factor
    """
    config = add_critic(vae.fashion_mnist(), learning_rate=1e-4)
    config.model.latent_dim = 10
    config.model.adversary = "factor"
    config.model.critic.net.hidden = (256, 256, 256)
    config.hparams.autoencoder.adversarial = 10.0
    return config


def dip_vae() -> ConfigDict:
    """DIP-VAE-II, Kumar et al. 2018 (arXiv 1711.00848): the covariance of z against the identity.

    Expected: elbo -242.7 +- 2.3, kl 11.89 +- 0.30, active_units 6 +- 1, reconstruction_mse 0.0160 +- 0.0004.
    Cost: 1 minute on 2 CPU cores.
    python -m experiments.train --config=configs/autoencoder.py:dip_vae --workdir=runs/dip
    """
    config = vae.fashion_mnist()
    config.model.latent_dim = 10
    config.model.penalties = ("dip_ii",)
    return config


def vae_gan() -> ConfigDict:
    """VAE-GAN, Larsen et al. 2016 (arXiv 1512.09300): images are reconstructed in the critic's hidden layers.

    Expected: elbo 694.3 +- 6.0, kl 30.4 +- 0.5, active_units 16 +- 1, reconstruction_mse 0.0074 +- 0.0003.
    Cost: 9 minutes on 2 CPU cores.
    python -m experiments.train --config=configs/autoencoder.py:vae_gan --workdir=runs/vae_gan
    """
    config = add_critic(images())
    config.model.adversary = "image"
    config.model.critic.samples = True
    config.model.critic.feature_matching = True
    config.model.critic.loss = "non_saturating"
    config.model.critic.r1 = True
    config.model.critic.net.name = "convnet"
    config.model.critic.net.hidden = (128,)
    config.hparams.autoencoder.reconstruction = 0.1
    config.hparams.autoencoder.feature_matching = 200.0
    config.hparams.autoencoder.adversarial = 5.0
    config.eval.metrics = ("elbo", "active_units", "reconstruction")
    return config


def tiny() -> ConfigDict:
    """Four steps of a VQ autoencoder with an image critic and the adaptive weight on 8x8 digits: for tests."""
    config = add_critic(vae.tiny())
    config.model.bottleneck = "vq"
    config.model.rate = "none"
    config.model.latent_dim = 4
    config.model.codebook.size = 8
    config.model.codebook.groups = 2
    config.model.adversary = "image"
    config.model.adaptive_weight = True
    config.model.critic.start = 1
    config.model.critic.net.hidden = (8,)
    config.eval.metrics = ("codebook", "reconstruction")
    config.checkpoint.best_metric = "reconstruction_mse"
    config.checkpoint.best_mode = "min"
    return config


VARIANTS = {
    function.__name__: function
    for function in (
        rae, wae, info_vae, aae, vq, fsq, vamp, clustering, beta_tcvae, factor_vae, dip_vae, vae_gan, tiny,
    )
}  # fmt: skip


def get_config(variant: str = "rae") -> ConfigDict:
    """The config of a variant."""
    return choose(VARIANTS, variant)()
