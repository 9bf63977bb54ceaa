"""Variational autoencoders: --config=configs/vae.py:VARIANT. Each variant's docstring is its row of a results table.

Colour images are in configs/vae_colour.py, other bottlenecks, priors, penalties and adversaries in
configs/autoencoder.py. Expected numbers are of the test
split; +- is the standard error over its examples, rounded up (`active_units` has none: by how many it may differ).
"""

from ml_collections import ConfigDict

from configs import base
from latent.config import choose

WEIGHTS = {
    "total_correlation": 5.0,
    "dip_off_diagonal": 10.0,
    "dip_diagonal": 5.0,
    "mmd": 10.0,
    "latent_norm": 0.01,
    "gradient_penalty": 0.01,
    "decoder_norm": 1e-6,
    "commitment": 0.25,
    "codebook": 1.0,
    "perceptual": 1.0,
    "adversarial": 1.0,
    "feature_matching": 1.0,
}
"""Weights of the terms that an objective may add, hparams.autoencoder.TERM."""


FACTOR_METRICS = {
    "mig": {"num_points": 10_000, "repeats": 5},
    "mig_sampled": {"num_points": 0, "num_samples": 1000},
    "dci": {"num_train": 2000, "num_test": 1000, "repeats": 2},
    "sap": {"num_train": 10_000, "num_test": 5000, "repeats": 2},
    "factorvae_score": {"num_points": 10_000, "batch": 64, "num_train": 10_000, "num_test": 5000, "repeats": 5},
    "betavae_score": {"num_points": 10_000, "batch": 64, "num_train": 10_000, "num_test": 5000, "repeats": 5},
    "modularity": {"num_train": 10_000, "num_test": 5000, "repeats": 2},
    "code_dependence": {"limit": 10_000},
}
"""Options of the metrics for sets with known factors of variation, such as `dsprites_rendered`."""


def family() -> ConfigDict:
    """What all variants share: every key that latent/models/vae.py and latent/autoencoding/ read."""
    config = base.get_config()
    config.model.name = "vae"
    config.model.latent_dim = 50
    config.model.bottleneck = "gaussian"  # gaussian | gaussian_full | deterministic | vq | fsq
    config.model.prior = "standard_normal"  # of gaussian: standard_normal | vamp | mixture
    config.model.prior_components = 10  # of vamp and mixture
    # bernoulli | gaussian | laplace, the last two with _learned | discretised_logistic | discretised_logistic_mixture
    config.model.likelihood = "bernoulli"
    config.model.observation_scale = 0.1  # of all but bernoulli: the scale, or where it starts
    config.model.mixture_components = 5  # of discretised_logistic_mixture
    config.model.objective = "elbo"  # elbo | iwae
    config.model.num_samples = 1  # of z for each example: k
    config.model.rate = "kl"  # of elbo: kl | free_bits | capacity | none (what has no posterior density)
    config.model.kl_warmup_steps = 0  # linear ramp of the rate's weight; 0: none
    config.model.capacity_steps = 10_000  # linear ramp of the capacity; 0: none
    config.model.penalties = ()  # total_correlation dip_i dip_ii mmd latent_norm gradient_penalty decoder_norm
    config.model.total_correlation_estimator = "stratified"  # stratified | weighted
    config.model.mmd_kernel = "imq"  # imq | rbf
    config.model.mmd_bandwidth = 1.0
    config.model.codebook = codebook = ConfigDict()  # of bottleneck=vq
    codebook.size = 128
    codebook.groups = 1  # codes that make up one latent vector
    codebook.update = "ema"  # ema | gradient
    codebook.decay = 0.99
    codebook.restart_below = 0.1  # of the even use; 0: no code restarts
    config.model.levels = (8, 8, 8)  # of bottleneck=fsq: levels of every channel
    config.model.perceptual = ""  # a shipped extractor, such as lenet_mnist: adds its distance
    config.model.adversary = "none"  # none | factor | latent | image
    config.model.adaptive_weight = False  # of adversary=image: balance it against the reconstruction
    config.model.critic = critic = ConfigDict()  # of every adversary
    critic.start = 0  # the step from which it counts
    critic.loss = "hinge"  # of latent and image: non_saturating | hinge | wasserstein | least_squares | relativistic
    critic.r1 = False  # of latent and image: the penalty R1
    critic.samples = False  # of image: judge decoded prior draws too
    critic.feature_matching = False  # of image: reconstruct its hidden layers
    critic.net = ConfigDict({"name": "mlp", "hidden": (256, 256), "activation": "leaky_relu", "channels": (32, 64)})
    config.model.net = net = ConfigDict()
    net.name = "mlp"  # mlp | convnet
    net.hidden = (200, 200)  # dense layers of the encoder; the decoder mirrors them
    net.activation = "tanh"
    net.channels = (32, 64)  # of convnet: every layer halves the image
    config.optimizer.autoencoder = base.optimizer("adam")
    config.hparams.autoencoder = hparams = ConfigDict()
    hparams.learning_rate = 1e-3
    hparams.reconstruction = 1.0  # weight of -log p(x | z)
    hparams.beta = 1.0  # weight of the rate
    hparams.free_bits = 0.1  # of rate=free_bits: nats per dimension
    hparams.capacity = 25.0  # of rate=capacity: nats
    for term, weight in WEIGHTS.items():
        hparams[term] = weight
    config.eval.metrics = ("elbo", "iwae", "active_units", "reconstruction")
    config.eval.options.iwae = ConfigDict({"num_samples": 50, "chunk": 50, "limit": 1000})
    annealing = {"distributions": 200, "chains": 16, "leapfrog": 10, "start": "posterior", "batch": 50}
    config.eval.options.ais = ConfigDict({**annealing, "limit": 100})
    config.eval.options.bdmc = ConfigDict({**annealing, "num_samples": 100})
    config.eval.options.lpips = ConfigDict({"network": "alexnet", "limit": 2000})  # alexnet | vgg16; 0: all images
    base.judge_codes(config)
    for name, options in FACTOR_METRICS.items():
        config.eval.options[name] = ConfigDict(options)
    config.checkpoint.best_metric = "elbo"
    return config


def digits() -> ConfigDict:
    """scikit-learn's 8x8 digits, Gaussian likelihood with a learned scale: the demo.

    Paper: none; log-densities of grey values, comparable with each other only.
    Expected: elbo 29.1 +- 1.2 nats, reconstruction_mse 0.0119 +- 0.0004, active_units 8 +- 0 (385 images).
    Cost: 10 s on 2 CPU cores.
    python -m experiments.train --config=configs/vae.py:digits --workdir=runs/digits
    """
    config = family()
    config.data.name = "digits"
    config.model.latent_dim = 8
    config.model.likelihood = "gaussian_learned"
    config.model.net.hidden = (128, 64)
    base.judge_samples(config, "lenet_digits", 2000)
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
    Expected: elbo -98.2 +- 0.3 nats, kl 25.1 +- 0.1, iwae_50 -94.2 +- 0.8 (1,000 images), active_units 22 +- 1.
    python -m experiments.train --config=configs/vae.py:mnist --workdir=runs/mnist
    """
    config = family()
    config.data.name = "mnist"
    config.data.binarise = "dynamic"
    base.judge_samples(config, "lenet_mnist", 10_000)
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
    Expected: elbo -240.7 +- 0.8 nats, kl 13.5 +- 0.1, active_units 8 +- 1, reconstruction_mse 0.0140 +- 0.0001.
    python -m experiments.train --config=configs/vae.py:fashion_mnist --workdir=runs/fashion
    """
    config = mnist()
    config.data.name = "fashion_mnist"
    base.judge_samples(config, "lenet_fashion_mnist", 10_000)
    config.data.binarise = "none"
    return config


def mnist_latent16() -> ConfigDict:
    """MNIST, grey values as soft Bernoulli targets, to 16 latents: the first stage of `configs/latent_ddpm.py:mnist`.

    Paper: none. Cost: 2 minutes on 2 CPU cores.
    Expected: elbo -98.6 +- 0.8 nats, kl 23.2 +- 0.2, active_units 16 +- 0, reconstruction_mse 0.0083 +- 0.0002.
    python -m experiments.train --config=configs/vae.py:mnist_latent16 --workdir=runs/mnist16
    """
    config = mnist()
    config.data.binarise = "none"
    config.model.latent_dim = 16
    config.model.net.hidden = (512, 256)
    return config


def fashion_latent16() -> ConfigDict:
    """`mnist_latent16` on Fashion-MNIST: the first stage in experiments/papers/two_stage.

    Paper: none. Cost: 2 minutes on 2 CPU cores.
    Expected: elbo -238.9 +- 2.3 nats, kl 15.3 +- 0.2, active_units 11 +- 1, reconstruction_mse 0.0121 +- 0.0003.
    python -m experiments.train --config=configs/vae.py:fashion_latent16 --workdir=runs/fashion16
    """
    config = mnist_latent16()
    config.data.name = "fashion_mnist"
    base.judge_samples(config, "lenet_fashion_mnist", 10_000)
    return config


def conv() -> ConfigDict:
    """MNIST with a convolutional encoder and its transposed mirror, 32 and 64 channels.

    Paper: none. Cost: 2 minutes on 2 CPU cores.
    Expected: elbo -92.6 +- 0.2 nats, kl 27.8 +- 0.1, iwae_50 -87.8 +- 0.7 (1,000 images), active_units 32 +- 1.
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


def fashion_latent64() -> ConfigDict:
    """Fashion-MNIST, grey values, `conv` to 64 latents with a light KL: the first stage of
    `configs/latent_ddpm.py:fashion_mnist`. With so light a KL its own prior is far from its codes.

    Paper: none. Cost: 6 minutes on 2 CPU cores.
    Expected: elbo -348.4 +- 2.4 nats, kl 146.2 +- 0.6, active_units 64 +- 0, reconstruction_mse 0.0047 +- 0.0002.
    python -m experiments.train --config=configs/vae.py:fashion_latent64 --workdir=runs/fashion64
    """
    config = conv()
    config.data.name = "fashion_mnist"
    config.data.binarise = "none"
    base.judge_samples(config, "lenet_fashion_mnist", 10_000)
    config.model.latent_dim = 64
    config.hparams.autoencoder.beta = 0.02
    config.train.steps = 15_000
    config.eval.every = 5000
    config.checkpoint.every = 5000
    return config


IWAE_EPOCH = 2755  # steps: our training split of 55,115 images at batch 20; the authors' has 59,600
IWAE_STAGES = 8


def iwae_paper(epochs: int = 40) -> ConfigDict:
    """Burda et al. 2016 (arXiv 1509.00519), Table 1: one stochastic layer, VAE = IWAE with k=1, on MNIST with dynamic
    binarisation; eight stages of 3^i epochs with falling rates, here the first 40 of 3280 epochs.

    Paper, after all epochs: test NLL 86.76 (k=1), 85.54 (IWAE k=5), 84.78 (IWAE k=50).
    Expected: iwae_5000 -91.7 +- 0.8 nats after 40 epochs (1,000 images). Cost: 3 minutes on 2 CPU cores.
    python -m experiments.train --config=configs/vae.py:iwae_paper --workdir=runs/iwae
    python -m experiments.evaluate --workdir=runs/iwae --metrics=iwae --options=iwae.num_samples=5000
    """
    config = family()
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
    config.eval.options.ais.update({"distributions": 3, "chains": 2, "leapfrog": 2, "limit": 4})
    config.eval.options.bdmc.update({"distributions": 3, "chains": 2, "leapfrog": 2, "num_samples": 4, "batch": 4})
    base.judge_codes(config, limit=100)
    base.judge_samples(config, "lenet_digits", 100)
    config.checkpoint.every = 2
    config.log.every = 2
    config.log.images = 4
    config.log.wandb = "disabled"
    return config


VARIANTS = {
    function.__name__: function
    for function in (
        digits, mnist, fashion_mnist, mnist_latent16, fashion_latent16, fashion_latent64, conv, iwae_paper, tiny,
    )
}  # fmt: skip


def get_config(variant: str = "digits") -> ConfigDict:
    """The config of a variant."""
    return choose(VARIANTS, variant)()
