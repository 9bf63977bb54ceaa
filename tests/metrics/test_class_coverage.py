"""Class coverage and label agreement of generators that give out real digits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent import config, evaluation_data
from latent.data import dataset
from latent.data.arrays import Split
from latent.errors import UserError
from latent.metrics import class_coverage, label_agreement
from latent.types import Model, State

STATE = State(jnp.int32(0), {}, {}, {}, {}, {}, jnp.int32(-1))
OPTIONS = config.Section({"extractor": "lenet_digits", "num_samples": 600})


@pytest.fixture(scope="module")
def digits():
    """Per class the training images that the set has most of."""
    train = dataset.load("digits", None).splits["train"]
    each = [train.x[train.label == label][:60] / np.float32(255) for label in range(10)]
    return jnp.float32(np.stack(each))


def measure(metric, sample, shape=(8, 8, 1), classes=10):
    model = Model(lambda *_: ({}, {}), (), lambda *_: {}, sample, classes=classes)
    split = Split(np.zeros((10, *shape), np.float32), np.zeros(10, np.int32))
    protocol = {"split": "test", "data": "digits"}
    data = evaluation_data.EvaluationData(model, split, lambda *a: a[0], protocol, seed=0, batch_size=128)
    return {result.name: result for result in metric.run(model, STATE, data, OPTIONS)}


def draws(images):
    """A generator that gives out images [K, n, ...]: of the class it is asked for, else of any."""

    def one(key, label):
        which, where = jax.random.split(key)
        label = jax.random.randint(which, (), 0, len(images)) if label is None else label
        return images[label, jax.random.randint(where, (), 0, images.shape[1])]

    def sample(params, extra, keys, condition):
        return jax.vmap(one, in_axes=(0, None if condition is None else 0))(keys, condition)

    return sample


def test_data_cover_every_class_with_confidence(digits):
    found = measure(class_coverage, draws(digits))
    share, confidence = found["class_coverage_min_share"], found["class_coverage_confidence"]
    assert 0.06 < share.value <= 0.1 and 0.003 < share.standard_error < 0.02
    assert confidence.value > 0.95 and 0 < confidence.standard_error < 0.01
    assert share.protocol["N"] == 600 and share.protocol["extractor"] == "lenet_digits"
    assert len(share.protocol["extractor_sha256"]) == 64


def test_a_lost_class_and_a_lost_shape_show(digits):
    lost = measure(class_coverage, draws(digits[:9]))
    assert lost["class_coverage_min_share"].value < 0.02
    noise = lambda params, extra, keys, condition: jax.vmap(lambda k: jax.random.uniform(k, (8, 8, 1)))(keys)  # noqa: E731
    assert measure(class_coverage, noise)["class_coverage_confidence"].value < 0.9


def test_labels_agree_where_the_generator_obeys(digits):
    found = measure(label_agreement, draws(digits))["label_agreement"]
    assert found.value > 0.97 and found.protocol["N"] == 600
    shifted = draws(jnp.roll(digits, 1, axis=0))
    assert measure(label_agreement, shifted)["label_agreement"].value < 0.05


def test_models_without_labels_and_other_shapes_are_undefined_with_a_reason(digits):
    def small(params, extra, keys, condition):
        return jnp.zeros((len(keys), 4, 4, 1))

    unlabelled = measure(label_agreement, draws(digits), classes=0)["label_agreement"]
    assert unlabelled.value is None and "can be asked for 0" in unlabelled.reason
    for metric in (class_coverage, label_agreement):
        found = measure(metric, small).values()
        assert all("(8, 8, 1)" in result.reason and result.value is None for result in found)


@pytest.mark.parametrize("metric", [class_coverage, label_agreement])
def test_options_that_make_no_sense_are_refused(metric):
    with pytest.raises(UserError, match="lenet_digits"):
        metric.names(config.Section({"extractor": "lenet_digit", "num_samples": 5}))
    with pytest.raises(UserError, match="num_samples=0"):
        metric.names(config.Section({"extractor": "lenet_digits", "num_samples": 0}))
