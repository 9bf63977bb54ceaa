"""First stages of latent diffusion: --config=configs/first_stage.py:VARIANT, autoencoders whose latents keep two
spatial axes. A work directory of one goes to --config.model.first_stage of configs/latent_ddpm.py.

Rombach et al. 2022 (arXiv 2112.10752), in little. Those for one GPU are in configs/diffusion_gpu.py.
"""

from ml_collections import ConfigDict

from configs import autoencoder, base
from latent.config import choose


def digits() -> ConfigDict:
    """The first stage of latent diffusion, Rombach et al. 2022 (arXiv 2112.10752): 8x8 digits to 4x4x2 and back (f2).

    Absolute error, a perceptual distance on our LeNet, and a patch critic from step 1000 on with the adaptive weight.
    Expected: active_units 32 +- 1, reconstruction_mse 0.0016 +- 0.0002.
    Cost: 3 minutes on 2 CPU cores.
    python -m experiments.train --config=configs/first_stage.py:digits --workdir=runs/first_stage_digits
    """
    config = autoencoder.add_critic(autoencoder.images())
    config.data.name = "digits"
    base.judge_samples(config, "lenet_digits", 2000)
    config.model.latent_dim = 2
    config.model.likelihood = "laplace"
    config.model.perceptual = "lenet_digits"
    config.model.net = ConfigDict({"name": "spatial", "channels": (16, 32), "num_blocks": 1, "attention": True})
    config.model.adversary = "image"
    config.model.adaptive_weight = True
    config.model.critic.start = 1000
    config.model.critic.net = ConfigDict({"name": "patch", "channels": (32,)})
    config.hparams.autoencoder.beta = 0.1
    config.hparams.autoencoder.perceptual = 50.0
    config.hparams.autoencoder.adversarial = 0.2
    config.train.batch_size = 64
    config.train.steps = 4000
    config.ema.decays = (0.999,)
    config.eval.average = "0.999"
    return config


def _four_times_smaller() -> ConfigDict:
    """Two halvings to four channels (f4), narrow enough for a CPU; the critic from step 1000 on."""
    config = digits()
    config.model.latent_dim = 4
    config.model.net.channels = (8, 16, 32)  # twice as many take 2.5 times as long a step
    config.model.critic.net.channels = (16, 32)
    config.train.steps = 2000
    return config


def mnist() -> ConfigDict:
    """`digits` for MNIST: 28x28 to 7x7x4 and back (f4). Samples of its prior are no digits: that takes a second stage.

    Paper: as `digits`. Cost: 5 minutes on 2 CPU cores (AVX-512).
    Expected: active_units 182 +- 5, reconstruction_mse 0.0018 +- 0.0002.
    python -m experiments.train --config=configs/first_stage.py:mnist --workdir=runs/first_stage_mnist
    """
    config = _four_times_smaller()
    config.data.name = "mnist"
    base.judge_samples(config, "lenet_mnist", 2000)
    config.model.perceptual = "lenet_mnist"
    return config


def emoji() -> ConfigDict:
    """`digits` in colour: emoji of 32x32 to 8x8x4 and back (f4).

    Without a perceptual distance: no features of colour images ship.
    Paper: as `digits`. Cost: 27 minutes on 2 CPU cores (no AVX-512), light work beside it.
    Expected: active_units 256 +- 1, reconstruction_mse 0.0063 +- 0.0006.
    python -m experiments.train --config=configs/first_stage.py:emoji --workdir=runs/first_stage_emoji
    """
    config = _four_times_smaller()
    config.data.name = "emoji"
    config.data.resize = 32
    config.model.perceptual = ""
    return config


def tiny() -> ConfigDict:
    """Four steps of `digits` on four channels, the critic from the second step on: for tests."""
    config = digits()
    config.model.net.channels = (4, 4)
    config.model.critic.start = 1
    config.model.critic.net.channels = (4,)
    config.train.steps = 4
    config.train.batch_size = 16
    config.optimizer.autoencoder.schedule.warmup_steps = 1
    config.eval.every = config.checkpoint.every = config.log.every = 2
    config.log.images = 4
    config.log.wandb = "disabled"
    return config


VARIANTS = {function.__name__: function for function in (digits, mnist, emoji, tiny)}


def get_config(variant: str = "digits") -> ConfigDict:
    """The config of a variant."""
    return choose(VARIANTS, variant)()
