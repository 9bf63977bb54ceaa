"""Diffusion models of a GPU's size, and the first stages of those in latents: none of them has been trained here.

--config=configs/diffusion_gpu.py:VARIANT. Targets are published numbers with their source; each row says where ours
differs. FID there is Inception's, on the reference that is named.
"""

from ml_collections import ConfigDict

from configs import first_stage, latent_ddpm
from latent.config import choose


def _long(steps: int) -> ConfigDict:
    """What the long runs share: rare evaluation, a slow average, no label."""
    config = latent_ddpm.family()
    config.model.conditional = False
    config.hparams.denoiser.label_dropout = 0.0
    config.train.steps = steps
    config.ema.decays = (0.9999,)
    config.eval.average = "0.9999"
    config.eval.every = config.checkpoint.every = steps // 20
    config.log.every = 500
    config.log.images = 8
    return config


def cifar10() -> ConfigDict:
    """CIFAR-10 pixels, Ho et al. 2020 (arXiv 2006.11239): T = 1000 linear, eps, fixed large variance, 800k steps.

    Target: FID 3.17 against the training set, 50,000 samples of 1,000 steps (the paper; settings of the authors'
    run_cifar.py). Against the test set the same model is at 5.25 to 5.33 (zeqiang-lai/ddpmx).
    Differs: no dropout (0.1 there), no clipping of estimates, adaptive normalisation (38.3M parameters, 35.7M there).
    Cost: the paper's 800,000 steps of 128; days on one GPU.
    python -m experiments.train --config=configs/diffusion_gpu.py:cifar10 --workdir=runs/cifar10
    """
    config = _long(800_000)
    config.data.name = "cifar10"
    config.data.flip = True
    config.model.schedule.name = "linear"
    config.model.prediction = "eps"
    config.model.times.name = "uniform"
    config.model.net.name = "unet"
    config.model.net.channels = (128, 256, 256, 256)
    config.model.net.num_blocks = 2
    config.model.net.attention_levels = (1,)
    config.model.net.heads = 1
    config.model.sampling.sampler = "ddpm"
    config.model.sampling.steps = 1000
    config.model.sampling.options = ConfigDict({"variance": "fixed_large"})
    config.hparams.denoiser.learning_rate = 2e-4
    config.optimizer.denoiser.schedule.warmup_steps = 5000
    config.train.batch_size = 128
    config.eval.metrics = ("vlb",)
    return config


def cifar10_edm() -> ConfigDict:
    """CIFAR-10 pixels by class, Karras et al. 2022 (arXiv 2206.00364): EDM's noise levels, weighting and Heun's method.

    Target: FID 1.79 with classes, 1.97 without, 50,000 samples of 35 evaluations (README of NVlabs/edm).
    Differs: the net of `cifar10` for DDPM++, no augmentation but flips, and what the net is shown and gives is scaled
    for data of unit variance (of 0.5 there, as the weighting and the law of training noise are here too).
    Cost: the paper's 200 million images, two days of eight V100 there; GPU.
    python -m experiments.train --config=configs/diffusion_gpu.py:cifar10_edm --workdir=runs/cifar10_edm
    """
    config = cifar10()
    config.model.conditional = True
    config.model.schedule.name = "edm"
    config.model.prediction = "v"
    config.model.times = ConfigDict({"name": "log_normal", "options": ConfigDict({"mean": -1.2, "std": 1.2})})
    config.model.weighting = ConfigDict({"name": "edm", "options": ConfigDict({"sigma_data": 0.5})})
    config.model.sampling.sampler = "heun"
    config.model.sampling.steps = 18
    config.model.sampling.grid = "karras"
    config.model.sampling.options = ConfigDict({"variance_exploding": True})
    config.hparams.denoiser.learning_rate = 1e-3
    config.optimizer.denoiser.schedule.warmup_steps = 20_000
    config.ema.decays, config.eval.average = (), "width_0.05"
    config.ema.relative_widths, config.ema.snapshot_every = (0.05, 0.1), 20_000
    config.train.batch_size, config.train.steps = 512, 400_000
    config.eval.every = config.checkpoint.every = 20_000
    config.eval.metrics = ("ode",)
    return config


def first_stage_celeb_a64() -> ConfigDict:
    """CelebA of 64x64 to 16x16x3 and back (f4), Rombach et al. 2022 (arXiv 2112.10752).

    Target: none for this size; at 256 pixels KL-f4 reconstructs OpenImages at a PSNR of 27.53 and an rFID of 0.27
    (README of CompVis/latent-diffusion).
    Differs: no perceptual distance (LPIPS there), a smaller net.
    Cost: 200,000 steps of 128; a day on one GPU.
    python -m experiments.train --config=configs/diffusion_gpu.py:first_stage_celeb_a64 --workdir=runs/celeb_a64_stage
    """
    config = first_stage.digits()
    config.data.name = "celeb_a"
    config.data.crop = None
    config.data.resize = 64
    config.data.flip = True
    config.model.latent_dim = 3
    config.model.perceptual = ""
    config.model.net.channels = (128, 256, 512)
    config.model.net.num_blocks = 2
    config.model.net.attention = False
    config.model.critic.start = 50_000
    config.model.critic.net.channels = (64, 128, 256)
    config.hparams.autoencoder.beta = 1e-3
    config.train.batch_size, config.train.steps = 128, 200_000
    config.eval.every = config.checkpoint.every = 10_000
    config.log.every = 500
    return config


def celeb_a64() -> ConfigDict:
    """CelebA of 64x64 in f4 latents, a U-net, Rombach et al. 2022 (arXiv 2112.10752).

    Target: none published for latent diffusion of this set and size; of autoencoders there, FID 55 (WAE-MMD) and 42
    (WAE-GAN) in Tolstikhin et al. 2018 (arXiv 1711.01558).
    Cost: 400,000 steps of 128; two days on one GPU.
    python -m experiments.train --config=configs/diffusion_gpu.py:first_stage_celeb_a64 --workdir=runs/celeb_a64_stage
    python -m experiments.train --config=configs/diffusion_gpu.py:celeb_a64 --workdir=runs/celeb_a64 --config.model.first_stage=runs/celeb_a64_stage
    """  # noqa: E501
    config = _long(400_000)
    config.data.name = "celeb_a"
    config.data.resize = 64
    config.data.flip = True
    config.model.schedule.name = "scaled_linear"
    config.model.prediction = "eps"
    config.model.net.name = "unet"
    config.model.net.channels = (192, 384, 576)
    config.model.net.num_blocks = 2
    config.model.net.attention_levels = (0, 1, 2)
    config.model.net.heads = 4
    config.model.sampling.steps = 200
    config.hparams.denoiser.learning_rate = 1e-4
    config.train.batch_size = 128
    config.eval.metrics = ("latent_vlb",)
    return config


def first_stage_imagenet256() -> ConfigDict:
    """ImageNet of 256x256 to 32x32x4 and back (f8), Rombach et al. 2022 (arXiv 2112.10752).

    Target: KL-f8 reconstructs OpenImages at a PSNR of 24.19 and an rFID of 0.90 (README of CompVis/latent-diffusion).
    Differs: no perceptual distance (LPIPS there), trained on ImageNet.
    Cost: 400,000 steps of 64; a week on eight GPUs.
    python -m experiments.train --config=configs/diffusion_gpu.py:first_stage_imagenet256 --workdir=runs/imagenet_stage
    """
    config = first_stage_celeb_a64()
    config.data.name = "imagenet2012"
    config.data.resize = 256
    config.model.latent_dim = 4
    config.model.net.channels = (128, 256, 512, 512)
    config.model.net.attention = True
    config.train.batch_size, config.train.steps = 64, 400_000
    return config


def imagenet256_dit_xl2() -> ConfigDict:
    """ImageNet of 256x256 in f8 latents by class, DiT-XL/2, Peebles & Xie 2023 (arXiv 2212.09748): 675M parameters.

    Target: at guidance 1.5 FID 2.27, IS 278.24, precision 0.83, recall 0.57 after 7M steps; without guidance 19.5 after
    400k (the paper; the authors' PyTorch code 18.1), 50,000 samples on ADM's reference.
    Differs: latents normalised by channel with measured statistics (one factor, 0.18215, there); our own first stage.
    Cost: 7,000,000 steps of 256, on a TPU v3-256 there; many GPUs.
    python -m experiments.train --config=configs/diffusion_gpu.py:first_stage_imagenet256 --workdir=runs/imagenet_stage
    python -m experiments.train --config=configs/diffusion_gpu.py:imagenet256_dit_xl2 --workdir=runs/dit --config.model.first_stage=runs/imagenet_stage
    """  # noqa: E501
    config = _long(7_000_000)
    config.data.name = "imagenet2012"
    config.data.resize = 256
    config.data.flip = True
    config.model.conditional = True
    config.model.schedule.name = "linear"
    config.model.prediction = "eps"
    config.model.learned_variance = True
    config.model.times.name = "uniform"
    config.model.net.name = "dit"
    config.model.net.patch = 2
    config.model.net.depth, config.model.net.width, config.model.net.heads = 28, 1152, 16
    config.model.net.remat = True
    config.model.sampling.sampler = "ddpm"
    config.model.sampling.steps = 250
    config.model.sampling.guidance = 1.5
    config.model.sampling.options = ConfigDict({"variance": "learned"})
    config.optimizer.denoiser.clip_norm = 0.0
    config.hparams.denoiser.learning_rate, config.hparams.denoiser.label_dropout = 1e-4, 0.1
    config.train.batch_size = 256
    config.eval.metrics = ("latent_vlb",)
    return config


def imagenet256_dit_b2() -> ConfigDict:
    """`imagenet256_dit_xl2` with the 130M parameters of DiT-B/2 and 400k steps, Peebles & Xie 2023 (arXiv 2212.09748).

    Target: the paper's DiT-B/4, of the same width and coarser patches, has FID 68.4 without guidance after 400k steps.
    Cost: 400,000 steps of 256; days on eight GPUs.
    python -m experiments.train --config=configs/diffusion_gpu.py:first_stage_imagenet256 --workdir=runs/imagenet_stage
    python -m experiments.train --config=configs/diffusion_gpu.py:imagenet256_dit_b2 --workdir=runs/dit_b --config.model.first_stage=runs/imagenet_stage
    """  # noqa: E501
    config = imagenet256_dit_xl2()
    config.model.net.depth, config.model.net.width, config.model.net.heads = 12, 768, 12
    config.model.net.remat = False
    config.model.sampling.guidance = 1.0
    config.train.steps = 400_000
    config.eval.every = config.checkpoint.every = 20_000
    return config


def _tiny(config: ConfigDict) -> ConfigDict:
    """Four steps of a config's own choices on the pixels of 8x8 digits."""
    small = latent_ddpm.tiny()
    for part in ("train", "log", "checkpoint"):
        config[part].update(small[part].to_dict())
    config.data.name, config.data.resize, config.data.flip = "digits", None, False
    config.optimizer.denoiser.schedule.warmup_steps = 1
    config.model.sampling.steps = 3
    config.eval.every = 2
    for metric in ("vlb", "ode"):
        config.eval.options[metric].steps, config.eval.options[metric].limit = 3, 8
    return config


def tiny() -> ConfigDict:
    """`cifar10` with eight channels: for tests."""
    config = _tiny(cifar10())
    config.model.net.channels = (8, 8)
    config.model.net.num_blocks = 1
    return config


def tiny_edm() -> ConfigDict:
    """`cifar10_edm` with a transformer of eight units: for tests."""
    config = _tiny(cifar10_edm())
    config.ema.snapshot_every = 2
    config.model.net.name = "dit"
    config.model.net.patch, config.model.net.depth, config.model.net.width, config.model.net.heads = 4, 1, 8, 1
    return config


def tiny_dit() -> ConfigDict:
    """`imagenet256_dit_xl2` with eight units, on pixels: for tests."""
    config = _tiny(imagenet256_dit_xl2())
    config.model.net.patch, config.model.net.depth, config.model.net.width, config.model.net.heads = 4, 1, 8, 1
    config.eval.metrics = ("vlb",)
    return config


VARIANTS = {
    function.__name__: function
    for function in (
        cifar10, cifar10_edm, first_stage_celeb_a64, celeb_a64, first_stage_imagenet256, imagenet256_dit_b2,
        imagenet256_dit_xl2, tiny, tiny_edm, tiny_dit,
    )
}  # fmt: skip


def get_config(variant: str = "cifar10") -> ConfigDict:
    """The config of a variant."""
    return choose(VARIANTS, variant)()
