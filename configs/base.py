"""Every key that every run has, with its default, commented once. Config files state differences from this."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """The defaults. Not a run by itself: it selects no model."""
    config = ConfigDict()
    config.seed = 0  # of initial parameters, data order and all noise

    config.data = data = ConfigDict()
    data.name = "digits"  # a module of latent/data, an image set of TFDS (cifar10, ...), or folder
    data.dir = placeholder(str)  # TFDS folder; None: TFDS_DATA_DIR, else ~/tensorflow_datasets
    data.folder = placeholder(str)  # of folder: images of your own, in class folders or in train/ and test/ with these
    data.broken_limit = 10  # of folder: files that may be left out because they cannot be read
    data.device_budget = 2 * 1024**3  # bytes: sets up to this size are kept on every device, larger ones are streamed
    data.workers = 2  # threads that read ahead what is streamed
    data.encode_once = False  # of a model on a frozen first stage: encode the training split once, not every batch
    data.resize = placeholder(int)  # side length of the central square after resizing, once, with antialiasing
    data.crop = placeholder(int)  # side length: random crop while training, centre crop in evaluation
    data.crop_padding = 0  # zeros around the image before a random crop
    data.flip = False  # random horizontal flip while training
    data.dequantise = False  # x = (pixel + uniform) / 256
    data.binarise = "none"  # none | dynamic | seeded | static: four different targets, never in one table
    data.binarise_seed = 777  # of seeded binarisation

    config.model = ConfigDict()  # model.name is a module of latent/models; its other keys are that module's

    config.optimizer = ConfigDict()  # one block per player, see `optimizer()` below

    config.hparams = ConfigDict()  # scalars by player that may differ within one compiled program

    config.ema = ConfigDict()
    config.ema.decays = ()  # moving averages of the weights with constant decay, e.g. (0.999,)
    config.ema.relative_widths = ()  # power-function averages (EDM2), width relative to training time, e.g. (0.1,)
    config.ema.snapshot_every = 0  # steps; power-function averages are kept for other widths later; 0: never

    config.train = train = ConfigDict()
    train.steps = 1000
    train.batch_size = 128  # the global batch, over all devices
    train.microbatches = 1  # gradient accumulation: parts that a device walks its batch in
    train.steps_per_dispatch = 0  # steps in one compiled program; 0: as many as every cadence allows, up to 100
    train.precision = "float32"  # float32 | bf16: products of bfloat16, everything kept and summed in float32
    train.published_epochs = 0  # length of the published schedule, said beside the results of a shorter run; 0: none
    train.deterministic = False  # bitwise repeatable kernels on GPU (slower); CPU and TPU always are

    config.parallel = ConfigDict()
    config.parallel.driver = "pmap"  # pmap | mesh, the same numbers in the global view
    config.parallel.fsdp = False  # of mesh: split the large arrays of the state over the devices
    config.parallel.devices = placeholder(int)  # None: all; several processes (experiments.train --help) always use all

    config.checkpoint = checkpoint = ConfigDict()
    checkpoint.every = 0  # steps; 0: at the end only
    checkpoint.keep = 2  # newest ones kept, besides the best
    checkpoint.best_metric = ""  # name of a metric in eval.metrics; empty: no best one is kept
    checkpoint.best_mode = "max"  # max | min

    config.eval = evaluation = ConfigDict()
    evaluation.every = 0  # steps; 0: at the end only
    evaluation.split = "validation"  # what training may look at; experiments.evaluate reports on test
    evaluation.metrics = ()  # modules of latent/metrics
    evaluation.batch_size = 256
    evaluation.average = ""  # weights to evaluate: the name of an average ("0.999"); empty: the raw ones
    evaluation.options = ConfigDict()  # per metric, e.g. options.iwae.num_samples

    config.log = log = ConfigDict()
    log.every = 100  # steps
    log.images = 8  # side of the logged image grids; 0: none
    log.wandb = "auto"  # auto | online | offline | disabled
    log.project = "latent"  # W&B project
    log.group = ""  # W&B group, e.g. the sweep
    return config


def judge_samples(config: ConfigDict, extractor: str, num_samples: int) -> None:
    """Options of every metric on samples: by which extractor (latent/extractors/catalogue.py; those of the set's own
    classes take a LeNet), of how many samples."""
    judged = {"extractor": extractor, "num_samples": num_samples}
    options = {
        "frechet_distance": judged,
        "frechet_prior": judged,
        "frechet_reconstruction": {"extractor": extractor},
        "kid": {**judged, "num_subsets": 0, "subset_size": 100},  # 0: all pairs; the literature's are 100 of 1000
        "class_score": judged,
        "class_coverage": judged,
        "label_agreement": judged,
        "prdc": {**judged, "k": 5},
        "memorisation": {"extractor": "pixels", "num_samples": min(num_samples, 2000), "duplicate_below": 0.1},
    }
    for name, values in options.items():
        config.eval.options[name] = ConfigDict(values)


def judge_codes(config: ConfigDict, limit: int = 10_000) -> None:
    """Options of the metrics on codes; `limit` is the number of examples that a probe or a clustering is fitted on and
    that an aggregate posterior is made of (0: all)."""
    options = {
        "active_units": {"threshold": 0.01},
        "kl_dimensions": {"largest": 5},
        "aggregate_posterior": {"limit": limit},
        "probes": {"limit": limit},
        "clustering": {"clusters": 0, "limit": limit},  # 0: as many as there are classes
    }
    for name, values in options.items():
        config.eval.options[name] = ConfigDict(values)


def optimizer(name: str = "adam", **changes) -> ConfigDict:
    """One player's optimiser block."""
    block = ConfigDict()
    block.name = name  # sgd, or any optax scale_by_<name>: adam, lion, rms, ...
    block.options = ConfigDict(changes.pop("options", {}))  # keyword arguments of that optax function
    block.clip_norm = 0.0  # clip the gradient's global norm; 0: off
    block.weight_decay = 0.0  # decoupled
    block.schedule = schedule = ConfigDict()
    schedule.name = "constant"  # constant | cosine | piecewise
    schedule.warmup_steps = 0  # linear
    schedule.horizon = placeholder(int)  # where cosine ends; None: train.steps of the first start
    schedule.final_factor = 0.0  # of cosine
    schedule.boundaries = ()  # of piecewise: steps at which the factor changes
    schedule.factors = ()  # of piecewise: one more than boundaries
    block.update_from_flattened_dict(changes)
    return block
