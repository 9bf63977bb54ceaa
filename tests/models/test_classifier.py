"""The classifier: its loss in closed form, dropout per example, every layer as an embedding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent import config, rng
from latent.errors import UserError
from latent.models import classifier
from latent.types import Context, DataSpec
from tests import harness

SHAPE = (8, 8, 1)
NETS = {
    "lenet": ({}, {"conv1": 4 * 4 * 2, "conv2": 2 * 2 * 2, "dense": 4}),
    "resnet": (
        {"net.channels": (8, 16), "net.blocks": 1},
        {"stem": 8 * 8 * 8, "stage1": 8 * 8 * 8, "stage2": 4 * 4 * 16, "pool": 16},
    ),
}


def build(name="lenet", classes=10, shape=SHAPE, **changes):
    section = config.load("configs/classifier.py:tiny").model.unlock()
    section.update_from_flattened_dict({"net.name": name, **NETS[name][0], **changes})
    spec = DataSpec("toy", shape, classes, 100, np.zeros(shape, np.float32), "unit")
    return classifier.build(config.Section(section.to_dict()), spec)


def batch(count=6):
    generator = np.random.default_rng(0)
    x = jnp.float32(generator.uniform(size=(count, *SHAPE)))
    return {"x": x, "label": jnp.asarray(generator.integers(0, 10, count), jnp.int32), "index": jnp.arange(count)}


def context(count=6, seed=0, train=True):
    same = lambda tree: tree  # noqa: E731
    return Context(rng.evaluation_stream(seed, np.arange(count)), jnp.int32(0), {}, train, same, same)


@pytest.mark.parametrize("name", NETS)
def test_terms_are_cross_entropy_and_accuracy_of_the_logits(name):
    model = build(name)
    params, extra = jax.jit(model.init)(harness.key(0), batch())
    terms = jax.jit(lambda p: model.terms(p, extra, batch(), context(train=False)))(params)
    info = jax.jit(model.encode)(params, extra, batch()["x"], jax.random.split(jax.random.key(0), 6)).info
    label = np.asarray(batch()["label"])
    probability = np.asarray(info["probability"])
    np.testing.assert_allclose(terms["cross_entropy"], -np.log(probability[np.arange(6), label]), rtol=1e-4)
    np.testing.assert_array_equal(terms["accuracy"], probability.argmax(axis=1) == label)


def test_label_smoothing_mixes_in_the_uniform_target():
    model, smooth = build(dropout=0.0), build(dropout=0.0, label_smoothing=0.2)
    params, extra = jax.jit(model.init)(harness.key(0), batch())
    logits = jax.jit(model.encode)(params, extra, batch()["x"], jax.random.split(jax.random.key(0), 6)).info["logits"]
    log_probability = np.asarray(jax.nn.log_softmax(logits))
    target = 0.8 * np.eye(10)[np.asarray(batch()["label"])] + 0.02
    found = jax.jit(lambda p: smooth.players[0].loss(p, extra, batch(), context()))(params)
    np.testing.assert_allclose(found.terms["cross_entropy"], -(target * log_probability).sum(axis=1), rtol=1e-4)
    assert float(found.objective) == pytest.approx(float(found.terms["cross_entropy"].mean()), rel=1e-6)


def test_dropout_keeps_the_mean_and_belongs_to_the_example():
    x = jnp.ones((2000, 30))
    keys = rng.evaluation_stream(0, np.arange(2000))("dropout")
    dropped = np.asarray(jax.jit(lambda k: classifier.dropout(x, k, 0.4))(keys))
    assert np.allclose(dropped[dropped > 0], 1 / 0.6)
    assert dropped.mean() == pytest.approx(1.0, abs=4 * np.sqrt(0.4 / 0.6 / 60_000))
    alone = np.asarray(jax.jit(lambda k: classifier.dropout(x[:1], k, 0.4))(keys[7:8]))
    np.testing.assert_array_equal(alone[0], dropped[7])


@pytest.mark.parametrize("name", NETS)
def test_every_layer_is_an_embedding(name):
    model = build(name)
    params, extra = jax.jit(model.init)(harness.key(0), batch())
    keys = jax.random.split(jax.random.key(0), 6)
    encode = jax.jit(model.encode, static_argnames="layer")
    for layer, size in NETS[name][1].items():
        assert encode(params, extra, batch()["x"], keys, layer=layer).mean.shape == (6, size)
    last = list(NETS[name][1])[-1]
    np.testing.assert_array_equal(
        encode(params, extra, batch()["x"], keys).mean, encode(params, extra, batch()["x"], keys, layer=last).mean
    )
    with pytest.raises(UserError, match=r"layer='nowhere'"):
        encode(params, extra, batch()["x"], keys, layer="nowhere")


@pytest.mark.parametrize("name", NETS)
def test_no_example_sees_its_batch(name):
    model = build(name)
    params, extra = jax.jit(model.init)(harness.key(0), batch())
    encode = jax.jit(lambda x: model.encode(params, extra, x, jax.random.split(jax.random.key(0), len(x))).mean)
    np.testing.assert_allclose(encode(batch()["x"])[2:3], encode(batch()["x"][2:3]), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": 0}, "needs classes"),
        ({"shape": (2,)}, "net.channels"),
        ({"shape": (2, 2, 1)}, "net.channels"),
        ({"dropout": 1.0}, "model.dropout=1.0"),
        ({"label_smoothing": -0.1}, "model.label_smoothing=-0.1"),
        ({"name": "resnet", "net.channels": (8, 12)}, "multiples of 8"),
    ],
)
def test_impossible_requests_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        build(**changes)
