"""The configs of colour sets, whose pictures no test can fetch: two steps of each, net and set made small."""

from __future__ import annotations

import json

import numpy as np
import pytest

import latent
from latent import config
from latent.data import arrays, dataset
from latent.data.arrays import Split
from latent.train import train

CONFIGS = {
    "configs/vae_colour.py:emoji": ("emoji/1.0.0/arrays", (64, 64, 3), 10),
    "configs/vae_colour.py:cifar10": ("cifar10/3.0.2/arrays", (32, 32, 3), 10),
    "configs/vae_colour.py:celeb_a64": ("celeb_a/2.1.0/arrays-64", (64, 64, 3), 0),
    "configs/first_stage.py:emoji": ("emoji/1.0.0/arrays", (64, 64, 3), 10),
}
"""Where the arrays of the set lie, their shape, the number of classes."""


def prepared(place, shape, classes):
    generator = np.random.default_rng(0)
    made = {}
    for split, size in (("train", 40), ("validation", 8), ("test", 8)):
        x = generator.integers(0, 256, (size, *shape)).astype(np.uint8)
        made[split] = Split(x, (np.arange(size) % classes if classes else np.full(size, -1)).astype(np.int32))
    arrays.write(place, made.items(), {"num_classes": classes, "card": {"title": "random"}})
    (place.parent / "dataset_info.json").write_text("{}")


@pytest.mark.slow  # configs/vae_colour.py:tiny stands for them in the quick suite
@pytest.mark.parametrize("path", CONFIGS)
def test_two_steps(path, tmp_path):
    place, shape, classes = CONFIGS[path]
    prepared(tmp_path / place, shape, classes)
    loaded = config.load(path)
    small = {
        "data.dir": str(tmp_path),
        "model.net.channels": tuple(4 for _ in loaded.model.net.channels),
        "train.steps": 2,
        "train.batch_size": 8,
        "optimizer.autoencoder.schedule.warmup_steps": 1,
        "eval.every": 0,
        "checkpoint.every": 0,
        "log.images": 2,
        "log.wandb": "disabled",
    }
    if loaded.model.net.name == "convnet":
        small["model.net.hidden"] = (8,)
    if loaded.model.likelihood == "discretised_logistic_mixture":
        small["model.mixture_components"] = 2
    if loaded.model.adversary == "image":
        small |= {"model.critic.start": 1, "model.critic.net.channels": (4, 4)}
    if "iwae" in loaded.eval.metrics:
        small |= {"eval.options.iwae.num_samples": 2, "eval.options.iwae.chunk": 2}
    assert train(config.load(path, small).to_dict(), tmp_path / "run") == 0
    run = latent.load(tmp_path / "run")
    results = run.evaluate(split="test")
    assert results and all(result.value is not None and np.isfinite(result.value) for result in results)
    x = run.examples("test")["x"]
    assert x.shape[1:] == run.spec.shape == ((64, 64, 3) if "celeb" in path else (32, 32, 3))
    codes = run.encode(x[:2])
    assert run.decode(codes.mean).shape == (2, *run.spec.shape)
    if "first_stage" in path:
        assert codes.mean.shape == (2, 8, 8, 4)


def test_the_set_of_emoji_is_where_these_tests_put_it():
    assert f"emoji/{dataset.source('emoji').version}/{dataset.ARRAYS}" == CONFIGS["configs/vae_colour.py:emoji"][0]
    assert json.dumps(CONFIGS["configs/vae_colour.py:emoji"][1]) == json.dumps(dataset.source("emoji").shape)
