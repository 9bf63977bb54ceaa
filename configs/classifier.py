"""Classifiers: --config=configs/classifier.py:VARIANT. The LeNets are the feature extractors of later metrics."""

from ml_collections import ConfigDict

from configs import base
from latent.config import choose


def _classifier() -> ConfigDict:
    """What all variants share: every key that latent/models/classifier.py reads."""
    config = base.get_config()
    config.model.name = "classifier"
    config.model.dropout = 0.0  # on the last layer before the head
    config.model.label_smoothing = 0.0
    config.model.net = net = ConfigDict()
    net.name = "lenet"  # lenet | resnet
    net.channels = (16, 32)
    net.width = 64  # of lenet: the embedding
    net.blocks = 2  # of resnet: per stage
    config.optimizer.classifier = base.optimizer("adam", weight_decay=1e-3)
    config.optimizer.classifier.schedule.name = "cosine"
    config.optimizer.classifier.schedule.warmup_steps = 200
    config.hparams.classifier = ConfigDict({"learning_rate": 2e-3})
    config.ema.decays = (0.999,)
    config.eval.average = "0.999"
    config.eval.metrics = ("accuracy",)
    config.checkpoint.best_metric = "accuracy"
    config.log.images = 0
    return config


def mnist() -> ConfigDict:
    """LeNet on MNIST with random shifts of up to two pixels.

    Paper: LeCun et al. 1998, test error 0.95% for LeNet-5 without distortions. Cost: 5 minutes on 2 CPU cores.
    Expected: accuracy 0.9945 +- 0.0007 (10,000 images).
    python -m experiments.train --config=configs/classifier.py:mnist --workdir=runs/lenet_mnist
    """
    config = _classifier()
    config.data.name = "mnist"
    config.data.crop = 28
    config.data.crop_padding = 2
    config.model.dropout = 0.3
    config.train.steps = 6000
    config.eval.every = 1000
    config.checkpoint.every = 1000
    config.log.every = 200
    return config


def fashion_mnist() -> ConfigDict:
    """LeNet on Fashion-MNIST with random shifts and flips.

    Paper: none for this net. Cost: 9 minutes on 2 CPU cores.
    Expected: accuracy 0.9201 +- 0.0027 (10,000 images).
    python -m experiments.train --config=configs/classifier.py:fashion_mnist --workdir=runs/lenet_fashion
    """
    config = mnist()
    config.data.name = "fashion_mnist"
    config.data.flip = True
    config.train.steps = 12_000
    return config


def digits() -> ConfigDict:
    """LeNet on scikit-learn's 8x8 digits with random shifts of one pixel.

    Paper: none. Cost: 1 minute on 2 CPU cores.
    Expected: accuracy 0.982 +- 0.007 (385 images).
    python -m experiments.train --config=configs/classifier.py:digits --workdir=runs/lenet_digits
    """
    config = _classifier()
    config.data.name = "digits"
    config.data.crop = 8
    config.data.crop_padding = 1
    config.model.dropout = 0.3
    config.train.steps = 3000
    config.eval.every = 500
    config.checkpoint.every = 500
    config.log.every = 100
    return config


def resnet() -> ConfigDict:
    """A residual network of 16-32-64 channels on MNIST.

    Paper: none for this net. Cost: 5 minutes on 2 CPU cores.
    Expected: accuracy 0.9922 +- 0.0009 (10,000 images).
    python -m experiments.train --config=configs/classifier.py:resnet --workdir=runs/resnet_mnist
    """
    config = mnist()
    config.model.net.name = "resnet"
    config.model.net.channels = (16, 32, 64)
    config.model.net.blocks = 1
    config.train.steps = 2000
    return config


def tiny() -> ConfigDict:
    """Four steps on a net of a few channels: for tests."""
    config = digits()
    config.model.net.channels = (2, 2)
    config.model.net.width = 4
    config.optimizer.classifier.schedule.warmup_steps = 1
    config.train.steps = 4
    config.train.batch_size = 16
    config.eval.every = 2
    config.checkpoint.every = 2
    config.log.every = 2
    config.log.wandb = "disabled"
    return config


VARIANTS = {function.__name__: function for function in (mnist, fashion_mnist, digits, resnet, tiny)}


def get_config(variant: str = "mnist") -> ConfigDict:
    """The config of a variant."""
    return choose(VARIANTS, variant)()
