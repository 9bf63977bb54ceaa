"""Generative adversarial networks: --config=configs/gan.py:VARIANT.

Expected numbers are of the test split; +- is three standard errors over the samples of one run (`modes`: the range
over seeds). `class_coverage` and `label_agreement` are what the shipped LeNet reads in 2,000 samples. "Watch" is what
the log shows of a run that goes well.
"""

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
    config.model.spectral_norm = False  # of every kernel of the critic
    config.model.critic_steps = 1  # critic updates for one of the generator
    config.model.conditional = False  # on the label: embedding for the generator, projection in the critic
    config.model.augment = "none"  # none | diffaugment | ada: of what the critic sees
    config.model.ada = ConfigDict({"target": 0.6, "images": 500_000})  # mean sign of real scores; images from 0 to 1
    # encode by optimisation of z, a search of so many steps from so many starts; 0: no encode
    config.model.inversion = ConfigDict({"steps": 0, "restarts": 4, "learning_rate": 0.1})
    config.model.net = net = ConfigDict()
    net.name = "convnet"  # mlp | convnet | dcgan | sngan | r3gan
    net.hidden = ()  # of mlp and convnet: dense layers of the critic; the generator mirrors them
    net.channels = (32, 64)  # of the others: width of every stage; a stage halves the image (r3gan: not the last)
    net.activation = "leaky_relu"  # of mlp and convnet
    net.attention = 0  # of sngan: side of the feature map with self-attention, 0: none
    net.blocks = 1  # of r3gan: residual blocks a stage
    net.groups = 1  # of r3gan: of its 3x3 convolutions
    net.resampling = "bilinear"  # of r3gan: bilinear | nearest
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

    Paper: none for this net. Cost: 2 minutes on 2 CPU cores.
    Expected: modes 25 +- 1, on_mode 0.871 +- 0.020.
    Watch: critic accuracy falls from 0.8 after 1,000 steps to between 0.5 and 0.6; diversity, the spread of samples,
    goes to the data's 2.8.
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
    base.judge_samples(config, "pixels", 2500)
    config.eval.every = 5000
    config.checkpoint.every = 5000
    config.checkpoint.best_metric = "modes"
    config.log.every = 500
    return config


def _images(extractor: str) -> ConfigDict:
    """What the image sets share; `extractor` is the classifier that reads the samples."""
    config = _gan()
    config.hparams.critic.r1 = 0.05
    config.hparams.critic.r2 = 0.05
    config.train.batch_size = 64
    config.eval.metrics = ("class_coverage",)
    base.judge_samples(config, extractor, 2000)
    config.log.every = 200
    return config


def digits() -> ConfigDict:
    """scikit-learn's 8x8 digits, convolutional critic and generator.

    Paper: none. Cost: 2 minutes on 2 CPU cores.
    Expected: class_coverage_min_share 0.081 +- 0.013, class_coverage_confidence 0.945 +- 0.008.
    Watch: critic accuracy settles near 0.9 and diversity near 0.2; 1.0 or a diversity near 0 is a collapse.
    python -m experiments.train --config=configs/gan.py:digits --workdir=runs/gan_digits
    """
    config = _images("lenet_digits")
    config.data.name = "digits"
    config.model.net.channels = (64, 128)
    config.train.steps = 10_000
    config.eval.every = 2000
    config.checkpoint.every = 2000
    return config


def mnist() -> ConfigDict:
    """MNIST, convolutional critic and generator of 32 and 64 channels.

    Paper: none for this net. Cost: 6 minutes on 2 CPU cores.
    Expected: class_coverage_min_share 0.070 +- 0.013, class_coverage_confidence 0.889 +- 0.011.
    Watch: critic accuracy leaves 1.0 after 1,000 steps and settles at 0.8 to 0.9; diversity from 0.03 to 0.18.
    python -m experiments.train --config=configs/gan.py:mnist --workdir=runs/gan_mnist
    """
    config = _images("lenet_mnist")
    config.data.name = "mnist"
    config.model.latent_dim = 64
    config.train.steps = 8000
    config.eval.every = 1000
    config.checkpoint.every = 1000
    return config


def mnist_conditional() -> ConfigDict:
    """MNIST by class: the generator is told the digit, the critic scores image and digit together.

    Paper: none for this net; the projection is Miyato & Koyama's (2018, arXiv 1802.05637). Cost: 6 minutes on 2 CPU
    cores.
    Expected: class_coverage_min_share 0.090 +- 0.012, class_coverage_confidence 0.990 +- 0.003,
    label_agreement 0.976 +- 0.010.
    Watch: as `mnist`; critic accuracy settles at 0.75 to 0.8.
    python -m experiments.train --config=configs/gan.py:mnist_conditional --workdir=runs/gan_mnist_conditional
    """
    config = mnist()
    config.model.conditional = True
    config.eval.metrics = ("class_coverage", "label_agreement")
    return config


def fashion_mnist() -> ConfigDict:
    """Fashion-MNIST, the nets of `mnist` at twice the width.

    Paper: none for this net. Cost: 10 minutes on 2 CPU cores (8,000 steps at 13 a second).
    Expected: class_coverage_min_share 0.083 +- 0.014, class_coverage_confidence 0.796 +- 0.014.
    Watch: critic accuracy settles near 0.8, diversity near 0.26.
    python -m experiments.train --config=configs/gan.py:fashion_mnist --workdir=runs/gan_fashion
    """
    config = mnist()
    config.data.name = "fashion_mnist"
    config.model.net.channels = (64, 128)
    base.judge_samples(config, "lenet_fashion_mnist", 2000)
    return config


def _tiny(config: ConfigDict) -> ConfigDict:
    config.train.steps = 4
    config.train.batch_size = 16
    for options in config.eval.options.values():
        if "num_samples" in options:
            options.num_samples = 100
    config.eval.every = 2
    config.checkpoint.every = 2
    config.log.every = 2
    config.log.wandb = "disabled"
    return config


def tiny() -> ConfigDict:
    """Four steps on nets of eight units, two critic steps for one of the generator: for tests."""
    config = _tiny(mixture())
    config.model.critic_steps = 2
    config.model.net.hidden = (8,)
    return config


def tiny_conditional() -> ConfigDict:
    """Four steps of a spectrally normalised, class-conditional SNGAN with attention and ADA: for tests."""
    config = digits()
    config.model.loss = "hinge"
    config.model.penalties = ()
    config.model.spectral_norm = True
    config.model.conditional = True
    config.model.augment = "ada"
    config.model.ada.target = -0.9
    config.model.ada.images = 64
    config.model.net.name = "sngan"
    config.model.net.channels = (4,)
    config.model.net.attention = 4
    config.eval.metrics = ("class_coverage", "label_agreement")
    return _tiny(config)


def tiny_r3gan() -> ConfigDict:
    """Four steps of R3GAN's loss and nets behind DiffAugment, with a two-step inversion as encoder: for tests."""
    config = digits()
    config.model.augment = "diffaugment"
    config.model.inversion.steps = 2
    config.model.inversion.restarts = 2
    config.model.net.name = "r3gan"
    config.model.net.channels = (4, 4)
    config.model.net.groups = 2
    config.eval.metrics = ("reconstruction",)
    return _tiny(config)


def tiny_dcgan() -> ConfigDict:
    """Four steps of a DCGAN with a Wasserstein loss and a gradient penalty: for tests."""
    config = digits()
    config.model.loss = "wasserstein"
    config.model.penalties = ("gradient_penalty",)
    config.model.critic_steps = 2
    config.model.net.name = "dcgan"
    config.model.net.channels = (4, 4)
    return _tiny(config)


VARIANTS = {
    function.__name__: function
    for function in (
        mixture,
        digits,
        mnist,
        mnist_conditional,
        fashion_mnist,
        tiny,
        tiny_conditional,
        tiny_r3gan,
        tiny_dcgan,
    )
}


def get_config(variant: str = "mixture") -> ConfigDict:
    """The config of a variant."""
    return choose(VARIANTS, variant)()
