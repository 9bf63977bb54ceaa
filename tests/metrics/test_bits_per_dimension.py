"""Bits per dimension: defined where a bound speaks of discrete data, and then its closed form."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from latent import config, evaluate, evaluation_data
from latent.autoencoding import likelihoods
from latent.data.arrays import Split
from latent.types import DataSpec, Model, State

STATE = State(jnp.int32(0), {}, {}, {}, {}, {}, jnp.int32(-1))


def bits(measure, preprocessing, elbo):
    """Of 20 examples of 2 x 3 values whose ELBO is as given."""
    model = Model(lambda *_: ({}, {}), (), lambda p, e, batch, c: {"elbo": elbo + 0.0 * batch["x"][:, 0, 0]})
    split = Split(np.zeros((20, 2, 3), np.float32), np.zeros(20, np.int32))
    protocol = {"split": "test", "data": "toy", "preprocessing": preprocessing}
    model = model._replace(measure=measure)
    data = evaluation_data.EvaluationData(model, split, lambda *a: a[0], protocol, seed=0, batch_size=7)
    (found,) = evaluate.run(("bits_per_dimension",), STATE, data, {})
    return found


def test_fair_coins_cost_one_bit_and_uniform_pixels_eight():
    assert bits("mass", {"binarise": "dynamic"}, 6 * np.log(0.5)).value == pytest.approx(1.0, rel=1e-6)
    assert bits("density", {"dequantise": True}, 0.0).value == pytest.approx(8.0, rel=1e-6)
    found = bits("density", {"dequantise": True}, 6 * np.log(4.0))  # a density of 4: two bits less
    assert found.value == pytest.approx(6.0, rel=1e-6) and found.standard_error == 0.0 and found.protocol["N"] == 20


def test_soft_targets_and_densities_at_grey_values_have_no_bits():
    assert "soft targets" in bits("neither", {"dequantise": True}, 0.0).reason
    assert "data.dequantise=True" in bits("density", {"binarise": "none"}, 0.0).reason


@pytest.mark.parametrize(
    ("likelihood", "support", "measure"),
    [
        ("bernoulli", "binary", "mass"),
        ("bernoulli", "unit", "neither"),
        ("gaussian", "unit", "density"),
        ("laplace_learned", "unit", "density"),
    ],
)
def test_likelihoods_say_what_they_are(likelihood, support, measure):
    spec = DataSpec("toy", (4,), 0, 10, np.full(4, 0.5, np.float32), support)
    made = likelihoods.make(config.Section({"likelihood": likelihood, "observation_scale": 0.1}), spec)
    assert made.measure == measure
