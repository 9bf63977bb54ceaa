"""Mode coverage of generators whose samples are known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent import config, evaluation_data
from latent.data import mixture_2d
from latent.data.arrays import Split
from latent.metrics import mode_coverage
from latent.types import Model, State

STATE = State(jnp.int32(0), {}, {}, {}, {}, {}, jnp.int32(-1))


def measure(sample, name="mixture_2d", count=1000):
    model = Model(lambda *_: ({}, {}), (), lambda *_: {}, lambda params, extra, keys, condition: jax.vmap(sample)(keys))
    split = Split(np.zeros((10, 2), np.float32), np.zeros(10, np.int32))
    protocol = {"split": "test", "data": name}
    data = evaluation_data.EvaluationData(model, split, lambda *a: a[0], protocol, seed=0, batch_size=128)
    results = mode_coverage.run(model, STATE, data, config.Section({"num_samples": count}))
    return {result.name: result for result in results}


def on_modes(modes, noise):
    means = jnp.asarray(mixture_2d.MIXTURE.means, jnp.float32)

    def sample(key):
        which, where = jax.random.split(key)
        return means[jax.random.randint(which, (), 0, modes)] + noise * jax.random.normal(where, (2,))

    return sample


@pytest.mark.parametrize("modes", [1, 20, 25])
def test_modes_are_counted(modes):
    found = measure(on_modes(modes, 0.0))
    assert found["modes"].value == modes and found["modes"].standard_error == 0.0
    assert found["on_mode"].value == 1.0


def test_the_mixture_itself_is_on_its_modes():
    """Within 4 standard deviations in the plane: all but exp(-8), Rayleigh's tail."""
    found = measure(on_modes(25, mixture_2d.SCALE), count=4000)
    assert found["modes"].value == 25
    assert found["on_mode"].value == pytest.approx(1 - np.exp(-8), abs=2e-3)


def test_samples_between_the_modes_do_not_count():
    found = measure(lambda key: jnp.array([1.0, 1.0]))
    assert found["modes"].value == 0 and found["on_mode"].value == 0.0


def test_other_sets_are_refused_with_a_reason():
    assert "no mixture" in measure(on_modes(25, 0.0), name="mixture_8d")["modes"].reason
    assert "no mixture" in measure(on_modes(25, 0.0), name="digits")["on_mode"].reason
