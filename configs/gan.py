"""Generative adversarial networks: --config=configs/gan.py:VARIANT."""

from ml_collections import ConfigDict

from configs import base
from latent.config import choose


def _gan() -> ConfigDict:
    """What all variants share: every key that latent/models/gan.py reads."""
    config = base.get_config()
    config.model.name = "gan"
    config.model.latent_dim = 32
    config.model.loss = "relativistic"  # relativistic | non_saturating | hinge | wasserstein | least_squares
    config.model.penalties = ("r1", "r2")  # any of r1, r2, gradient_penalty; their weights are hparams
    config.model.critic_steps = 1  # critic updates for one of the generator
    config.model.net = net = ConfigDict()
    net.name = "convnet"  # mlp | convnet
    net.hidden = ()  # dense layers of the critic; the generator mirrors them
    net.channels = (32, 64)  # of convnet: every layer halves the image
    net.activation = "leaky_relu"
    config.optimizer.critic = base.optimizer("adam", options={"b1": 0.0, "b2": 0.99})
    config.optimizer.generator = base.optimizer("adam", options={"b1": 0.0, "b2": 0.99})
    config.hparams.critic = critic = ConfigDict()
    critic.learning_rate = 2e-4
    critic.r1 = 1.0  # weight of |gradient|^2 at data (gamma / 2 in the papers)
    critic.r2 = 1.0  # the same at samples
    critic.gradient_penalty = 10.0
    config.hparams.generator = ConfigDict({"learning_rate": 2e-4})
    config.ema.decays = (0.999,)
    config.eval.average = "0.999"
    config.checkpoint.best_mode = "max"
    return config


def mixture() -> ConfigDict:
    """25 Gaussians on a grid in the plane: does the generator cover every mode?

    Paper: none for this net. Cost: 1 minute on 2 CPU cores.
    Expected: 25 of 25 modes, 87% of samples within 4 standard deviations of one.
    Watch: critic accuracy falls from 1.0 to 0.6; diversity, the spread of samples, rises towards the data's 2.8.
    python -m experiments.train --config=configs/gan.py:mixture --workdir=runs/gan_mixture
    """
    config = _gan()
    config.data.name = "mixture_2d"
    config.model.latent_dim = 8
    config.model.net.name = "mlp"
    config.model.net.hidden = (128, 128, 128)
    config.hparams.critic.learning_rate = 5e-4
    config.hparams.generator.learning_rate = 5e-4
    config.hparams.critic.r1 = 0.05
    config.hparams.critic.r2 = 0.05
    config.train.steps = 20_000
    config.train.batch_size = 256
    config.eval.metrics = ("mode_coverage",)
    config.eval.options.mode_coverage = ConfigDict({"num_samples": 2500})
    config.eval.every = 5000
    config.checkpoint.every = 5000
    config.checkpoint.best_metric = "modes"
    config.log.every = 500
    return config


def digits() -> ConfigDict:
    """scikit-learn's 8x8 digits, convolutional critic and generator.

    Paper: none. Cost: 2 minutes on 2 CPU cores.
    Expected: of 2,000 samples our LeNet gives every class 8% to 12%, with mean confidence 0.945.
    Watch: critic accuracy settles near 0.9 and diversity near 0.2; 1.0 or a diversity near 0 is a collapse.
    python -m experiments.train --config=configs/gan.py:digits --workdir=runs/gan_digits
    """
    config = _gan()
    config.data.name = "digits"
    config.model.net.channels = (64, 128)
    config.hparams.critic.r1 = 0.05
    config.hparams.critic.r2 = 0.05
    config.train.steps = 10_000
    config.train.batch_size = 64
    config.eval.every = 2000
    config.checkpoint.every = 2000
    config.log.every = 200
    return config


def mnist() -> ConfigDict:
    """MNIST, convolutional critic and generator of 32 and 64 channels.

    Paper: none for this net. Cost: 6 minutes on 2 CPU cores.
    Expected: of 2,000 samples our LeNet gives every class 7% to 13%, with mean confidence 0.889.
    Watch: as `digits`; critic accuracy settles at 0.8 to 0.9.
    python -m experiments.train --config=configs/gan.py:mnist --workdir=runs/gan_mnist
    """
    config = digits()
    config.data.name = "mnist"
    config.model.net.channels = (32, 64)
    config.model.latent_dim = 64
    config.train.steps = 8000
    config.eval.every = 1000
    config.checkpoint.every = 1000
    return config


def tiny() -> ConfigDict:
    """Four steps on nets of eight units, two critic steps for one of the generator: for tests."""
    config = mixture()
    config.model.critic_steps = 2
    config.model.net.hidden = (8,)
    config.train.steps = 4
    config.train.batch_size = 16
    config.eval.options.mode_coverage.num_samples = 100
    config.eval.every = 2
    config.checkpoint.every = 2
    config.log.every = 2
    config.log.wandb = "disabled"
    return config


VARIANTS = {function.__name__: function for function in (mixture, digits, mnist, tiny)}


def get_config(variant: str = "mixture") -> ConfigDict:
    """The config of a variant."""
    return choose(VARIANTS, variant)()
