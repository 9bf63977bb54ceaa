"""Variational autoencoders of colour images: --config=configs/vae_colour.py:VARIANT, as in configs/vae.py.

The likelihood is of the 8-bit values themselves, so that the bound is in bits of pixels (`bits_per_dimension`).
"""

from ml_collections import ConfigDict

from configs import vae
from latent.config import choose


def _colour() -> ConfigDict:
    """What all share: a convolutional net and a mixture of discretised logistics for every pixel."""
    config = vae.conv()
    config.data.binarise = "none"
    config.model.latent_dim = 64
    config.model.likelihood = "discretised_logistic_mixture"
    config.model.mixture_components = 5
    config.model.net.channels = (32, 64, 128)
    del config.eval.options.frechet_distance  # no features of colour images ship
    config.eval.metrics = ("elbo", "bits_per_dimension", "active_units", "reconstruction")
    config.ema.decays = (0.999,)
    config.eval.average = "0.999"
    return config


def emoji() -> ConfigDict:
    """Emoji in colour at 32x32, two art styles, split by emoji.

    Paper: none; bits of these pictures, comparable with each other only. 6,000 training images are few: the bound on
    held-out emoji is best after 2,000 steps (--step=best: -8799 +- 91 nats, 4.13 bits a value) and falls from there,
    while reconstructions still gain.
    Expected: elbo -9127 +- 310 nats, kl 203 +- 3, bits_per_dim 4.29 +- 0.15, active_units 64 +- 1,
    reconstruction_mse 0.0131 +- 0.0011.
    Cost: 39 minutes on 2 CPU cores without AVX-512, other work beside it.
    python -m experiments.train --config=configs/vae_colour.py:emoji --workdir=runs/emoji_vae
    """
    config = _colour()
    config.data.name = "emoji"
    config.data.resize = 32
    config.model.likelihood = "discretised_logistic"  # a mixture asks much more of a CPU
    config.train.steps = 6000
    return config


def cifar10() -> ConfigDict:
    """CIFAR-10 as TFDS prepares it, flipped at random. Not measured.

    Paper: none. Cost: not measured; meant for one GPU.
    Target: none of its own; the published bounds on CIFAR-10, in bits per dimension, are of far deeper nets.
    python -m experiments.train --config=configs/vae_colour.py:cifar10 --workdir=runs/cifar10
    """
    config = _colour()
    config.data.name = "cifar10"
    config.data.flip = True
    config.model.latent_dim = 128
    config.model.net.channels = (64, 128, 256)
    config.train.steps = 50_000
    return config


def celeb_a64() -> ConfigDict:
    """CelebA, the central square of the aligned faces at 64x64, flipped at random: squared error. Not measured.

    Cost: not measured; meant for one GPU.
    Target: FID 63, of the VAE in Tolstikhin et al. 2018 (arXiv 1711.01558), whose crops of the faces are other ones.
    python -m experiments.train --config=configs/vae_colour.py:celeb_a64 --workdir=runs/celeb_a64
    """
    config = cifar10()
    config.data.name = "celeb_a"
    config.data.resize = 64
    config.model.likelihood = "gaussian_learned"  # as in the paper: densities have no bits of pixels
    config.eval.metrics = ("elbo", "active_units", "reconstruction")
    config.model.latent_dim = 64
    config.model.net.channels = (64, 128, 256, 512)
    return config


def tiny() -> ConfigDict:
    """Four steps of two logistics a pixel, in bfloat16, on 8x8 digits: for tests."""
    config = vae.tiny()
    config.model.likelihood = "discretised_logistic_mixture"
    config.model.mixture_components = 2
    config.train.precision = "bf16"
    config.eval.metrics = ("elbo", "bits_per_dimension")
    return config


VARIANTS = {function.__name__: function for function in (emoji, cifar10, celeb_a64, tiny)}


def get_config(variant: str = "cifar10") -> ConfigDict:
    """The config of a variant."""
    return choose(VARIANTS, variant)()
