"""Variational autoencoders: --config=configs/vae.py:VARIANT. Each variant's docstring is its row of a results table."""

from ml_collections import ConfigDict

from configs import base
from latent.config import choose


def _vae() -> ConfigDict:
    """What all variants share: every key that latent/models/vae.py reads."""
    config = base.get_config()
    config.model.name = "vae"
    config.model.latent_dim = 50
    config.model.likelihood = "bernoulli"  # bernoulli | gaussian | gaussian_learned
    config.model.observation_scale = 0.1  # of the gaussian ones: the scale, or where it starts
    config.model.objective = "elbo"  # elbo | iwae
    config.model.num_samples = 1  # of z for each example: k
    config.model.regulariser = "kl"  # of elbo: kl | free_bits | capacity
    config.model.kl_warmup_steps = 0  # linear ramp of the rate's weight; 0: none
    config.model.capacity_steps = 10_000  # linear ramp of the capacity; 0: none
    config.model.net = net = ConfigDict()
    net.name = "mlp"  # mlp | convnet
    net.hidden = (200, 200)  # dense layers of the encoder; the decoder mirrors them
    net.activation = "tanh"
    net.channels = (32, 64)  # of convnet: every layer halves the image
    config.optimizer.autoencoder = base.optimizer("adam")
    config.hparams.autoencoder = hparams = ConfigDict()
    hparams.learning_rate = 1e-3
    hparams.beta = 1.0  # weight of the rate
    hparams.free_bits = 0.1  # of regulariser=free_bits: nats per dimension
    hparams.capacity = 25.0  # of regulariser=capacity: nats
    config.eval.metrics = ("elbo", "iwae", "active_units", "reconstruction")
    config.eval.options.iwae = ConfigDict({"num_samples": 50, "chunk": 50, "limit": 1000})
    config.eval.options.active_units = ConfigDict({"threshold": 0.01})
    config.checkpoint.best_metric = "elbo"
    return config


def digits() -> ConfigDict:
    """scikit-learn's 8x8 digits, Gaussian likelihood with a learned scale: the demo.

    Paper: none; log-densities of grey values, comparable with each other only.
    Expected: test ELBO 29.1 +- 1.2 nats, reconstruction MSE 0.0119 +- 0.0004, 8 active units (385 images).
    Cost: 10 s on 2 CPU cores.
    python -m experiments.train --config=configs/vae.py:digits --workdir=runs/digits
    """
    config = _vae()
    config.data.name = "digits"
    config.model.latent_dim = 8
    config.model.likelihood = "gaussian_learned"
    config.model.net.hidden = (128, 64)
    config.train.steps = 12_000
    config.optimizer.autoencoder.schedule.name = "cosine"
    config.optimizer.autoencoder.schedule.warmup_steps = 200
    config.ema.decays = (0.999,)
    config.eval.average = "0.999"
    config.eval.every = 2000
    config.checkpoint.every = 2000
    config.log.every = 500
    return config


def mnist() -> ConfigDict:
    """MNIST, dynamic binarisation, the 784-200-200-50 net of Burda et al. 2016 at batch 128.

    Paper: none (its protocol is `iwae_paper`). Cost: 1 minute on 2 CPU cores.
    Expected: test ELBO -98.2 +- 0.3 nats, KL 25.1, IWAE-50 bound -94.2 +- 0.8 (1,000 images), 22 active units.
    python -m experiments.train --config=configs/vae.py:mnist --workdir=runs/mnist
    """
    config = _vae()
    config.data.name = "mnist"
    config.data.binarise = "dynamic"
    config.train.steps = 20_000
    config.optimizer.autoencoder.schedule.name = "cosine"
    config.optimizer.autoencoder.schedule.warmup_steps = 500
    config.eval.every = 5000
    config.checkpoint.every = 5000
    config.log.every = 500
    return config


def fashion_mnist() -> ConfigDict:
    """Fashion-MNIST, grey values as soft Bernoulli targets, otherwise as `mnist`.

    Paper: none. Cost: 1 minute on 2 CPU cores.
    Expected: test ELBO -240.7 +- 0.8 nats, KL 13.5, 8 active units, reconstruction MSE 0.0140.
    python -m experiments.train --config=configs/vae.py:fashion_mnist --workdir=runs/fashion
    """
    config = mnist()
    config.data.name = "fashion_mnist"
    config.data.binarise = "none"
    return config


def conv() -> ConfigDict:
    """MNIST with a convolutional encoder and its transposed mirror, 32 and 64 channels.

    Paper: none. Cost: 2 minutes on 2 CPU cores.
    Expected: test ELBO -92.6 +- 0.2 nats, KL 27.8, IWAE-50 bound -87.8 +- 0.7 (1,000 images), 32 active units.
    python -m experiments.train --config=configs/vae.py:conv --workdir=runs/conv
    """
    config = mnist()
    config.model.net.name = "convnet"
    config.model.net.hidden = (256,)
    config.model.net.activation = "silu"  # with ReLU and no KL warm-up this net collapses to the prior at once
    config.train.steps = 5000
    config.eval.every = 1000
    config.checkpoint.every = 1000
    config.log.every = 100
    return config


IWAE_EPOCH = 2755  # steps: our training split of 55,115 images at batch 20; the authors' has 59,600
IWAE_STAGES = 8


def iwae_paper(epochs: int = 40) -> ConfigDict:
    """Burda et al. 2016 (arXiv 1509.00519), Table 1: one stochastic layer, VAE = IWAE with k=1, on MNIST with dynamic
    binarisation; eight stages of 3^i epochs with falling rates, here the first 40 of 3280 epochs.

    Paper, after all epochs: test NLL 86.76 (k=1), 85.54 (IWAE k=5), 84.78 (IWAE k=50).
    Expected after 40: test NLL 91.7 +- 0.8 (k=5000, 1,000 images). Cost: 3 minutes on 2 CPU cores.
    python -m experiments.train --config=configs/vae.py:iwae_paper --workdir=runs/iwae
    python -m experiments.evaluate --workdir=runs/iwae --metrics=iwae --options=iwae.num_samples=5000
    """
    config = _vae()
    config.data.name = "mnist"
    config.data.binarise = "dynamic"
    config.train.batch_size = 20
    config.train.steps = epochs * IWAE_EPOCH
    config.optimizer.autoencoder.options = ConfigDict({"b1": 0.9, "b2": 0.999, "eps": 1e-4})
    schedule = config.optimizer.autoencoder.schedule
    config.train.published_epochs = 3280
    schedule.name = "piecewise"
    ends = [sum(3**i for i in range(stage + 1)) * IWAE_EPOCH for stage in range(IWAE_STAGES)]
    schedule.boundaries = tuple(ends[:-1])
    schedule.factors = tuple(round(10 ** (1 - stage / 7), 1) for stage in range(IWAE_STAGES))
    config.hparams.autoencoder.learning_rate = 1e-4
    config.eval.every = IWAE_EPOCH
    config.checkpoint.every = IWAE_EPOCH
    config.log.every = IWAE_EPOCH // 5
    return config


def tiny() -> ConfigDict:
    """Four steps on a net of eight units: for tests."""
    config = digits()
    config.model.latent_dim = 2
    config.model.net.hidden = (8,)
    config.train.steps = 4
    config.train.batch_size = 16
    config.optimizer.autoencoder.schedule.warmup_steps = 1
    config.eval.every = 2
    config.eval.options.iwae.num_samples = 4
    config.eval.options.iwae.chunk = 2
    config.eval.options.iwae.limit = 32
    config.checkpoint.every = 2
    config.log.every = 2
    config.log.images = 4
    config.log.wandb = "disabled"
    return config


VARIANTS = {function.__name__: function for function in (digits, mnist, fashion_mnist, conv, iwae_paper, tiny)}


def get_config(variant: str = "digits") -> ConfigDict:
    """The config of a variant."""
    return choose(VARIANTS, variant)()
