"""The shipped LeNets: small, undamaged, and as good as their cards say."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from latent.data import dataset
from latent.errors import UserError
from latent.extractors import lenet


@pytest.mark.parametrize("name", lenet.names())
def test_every_extractor_keeps_the_protocol(name):
    extractor = lenet.load(name)
    assert (lenet.FOLDER / f"{name}.npz").stat().st_size <= 500_000
    assert {"command", "data", "data_sha256", "test_accuracy", "sha256"} <= extractor.card.keys()
    assert extractor.sha256 == extractor.card["sha256"]
    x = np.random.default_rng(0).uniform(size=(3, *extractor.card["shape"])).astype(np.float32)
    found = jax.jit(extractor.features)(x)
    assert found["features"].shape == (3, 64) and found["logits"].shape == (3, extractor.card["num_classes"])
    alone = jax.jit(extractor.features)(x[1:2])
    np.testing.assert_allclose(alone["features"][0], found["features"][1], atol=1e-5)


def test_three_ship():
    assert lenet.names() == ["lenet_digits", "lenet_fashion_mnist", "lenet_mnist"]


@pytest.mark.parametrize("name", lenet.names())
def test_the_accuracy_of_the_card_is_measured_again(name):
    extractor = lenet.load(name)
    source, version = extractor.card["data"], dataset.source(extractor.card["data"]).version
    if source != "digits" and not (dataset.data_directory(None) / source / version / dataset.ARRAYS).is_dir():
        pytest.skip(f"{source} is not prepared on this machine (python -m scripts.prepare_data)")
    split = dataset.load(source).splits["test"]
    features = jax.jit(lambda x: extractor.features(x)["logits"])
    logits = np.concatenate([features(part / np.float32(255)) for part in np.array_split(split.x, 10)])
    accuracy = float(np.mean(logits.argmax(axis=1) == split.label))
    assert accuracy == pytest.approx(extractor.card["test_accuracy"], abs=2e-4)
    assert accuracy > {"digits": 0.98, "mnist": 0.99, "fashion_mnist": 0.91}[source]


def test_damaged_weights_are_told(tmp_path, monkeypatch):
    with np.load(lenet.FOLDER / "lenet_digits.npz") as stored:
        arrays = dict(stored)
    arrays["head/bias"] = arrays["head/bias"] + 1e-3
    np.savez_compressed(tmp_path / "lenet_digits.npz", **arrays)
    monkeypatch.setattr(lenet, "FOLDER", tmp_path)
    with pytest.raises(UserError, match=r"extractor='lenet_digits' is damaged"):
        lenet.load("lenet_digits")
    with pytest.raises(UserError, match=r"extractor='lenet_digit'.*'lenet_digits'"):
        lenet.load("lenet_digit")
