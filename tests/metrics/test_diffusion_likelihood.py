"""Likelihoods of diffusion models: the passport says what the denoiser was told of the examples."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from latent import config, evaluation_data
from latent.data.arrays import Split
from latent.metrics import diffusion_likelihood
from latent.types import Model, State

STATE = State(jnp.int32(0), {}, {}, {}, {}, {}, jnp.int32(-1))


@pytest.mark.parametrize(
    ("told", "recorded"),
    [
        ((), {"conditional": False}),
        (("label",), {"conditional": True}),
        (("text",), {"conditional": False, "text": True}),
        (("label", "text"), {"conditional": True, "text": True}),
    ],
)
def test_the_passport_says_what_the_denoiser_is_told(told, recorded):
    """Classes that samples can be asked for do not matter: a classifier that guides them gives these too."""
    functions = {"vlb": lambda params, extra, batch, keys, steps, quantised: batch["x"][:, 0]}
    model = Model(lambda *_: ({}, {}), (), lambda *_: {}, likelihoods=functions, classes=4, told=told)
    split = Split(np.ones((3, 2), np.float32), np.zeros(3, np.int32))
    data = evaluation_data.EvaluationData(model, split, lambda *a: a[0], {"split": "test"}, seed=0, batch_size=3)
    found = diffusion_likelihood.result("vlb", "bits", STATE, data, config.Section({"steps": 2, "limit": 0}))
    assert found.value == 1.0
    chosen = {key: value for key, value in found.protocol.items() if key in ("conditional", "text")}
    assert chosen == recorded
