"""Optimiser blocks, schedules and averages against their formulas."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from latent import config, optim
from latent.errors import UserError


def block(**changes):
    return config.Section(base.optimizer(**changes).to_dict())


def rates(**changes):
    schedule = optim.schedule(block(**changes).schedule, "schedule", horizon=100)
    return np.array([float(schedule(jnp.int32(step))) for step in range(130)])


def test_warmup_then_cosine():
    found = rates(**{"schedule.name": "cosine", "schedule.warmup_steps": 10, "schedule.final_factor": 0.1})
    np.testing.assert_allclose(found[:10], np.arange(1, 11) / 10, rtol=1e-6)
    progress = (np.arange(10, 100) - 10) / 90
    np.testing.assert_allclose(found[10:100], 0.1 + 0.9 * (1 + np.cos(np.pi * progress)) / 2, rtol=1e-5)
    np.testing.assert_allclose(found[100:], 0.1, rtol=1e-6)  # past the horizon the final rate stays


def test_the_horizon_is_its_own_key():
    short = rates(**{"schedule.name": "cosine", "schedule.horizon": 50})
    assert short[50] == pytest.approx(0.0, abs=1e-7) and short[49] > 0


def test_piecewise_boundaries_are_steps():
    found = rates(
        **{"schedule.name": "piecewise", "schedule.boundaries": (5, 20), "schedule.factors": (1.0, 0.5, 0.1),
           "schedule.warmup_steps": 2}
    )  # fmt: skip
    np.testing.assert_allclose(found[[0, 1, 2, 4, 5, 19, 20, 129]], [0.5, 1, 1, 1, 0.5, 0.5, 0.1, 0.1], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"name": "adamm"}, "adam"),
        ({"options": {"b3": 0.1}}, "b3"),
        ({"schedule.name": "cosin"}, "cosine"),
        ({"schedule.name": "cosine", "schedule.warmup_steps": 100}, "warmup_steps"),
        ({"schedule.name": "piecewise", "schedule.boundaries": (5,), "schedule.factors": (1.0,)}, "factors"),
    ],
)
def test_bad_blocks_are_refused(changes, word):
    with pytest.raises(UserError, match=word):
        optim.optimizer(block(**changes), "optimizer.player", 100)


def test_chain_clips_scales_and_decays():
    built = optim.optimizer(block(name="sgd", clip_norm=1.0, weight_decay=0.1), "optimizer.player", 100)
    params, gradient = {"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([30.0, 40.0])}
    update, _ = built.transform.update(gradient, built.transform.init(params), params)
    np.testing.assert_allclose(update["w"], np.array([0.6, 0.8]) + 0.1 * np.array([3.0, 4.0]), rtol=1e-6)


def test_adam_is_optax_adam_without_a_rate():
    built = optim.optimizer(block(options={"b1": 0.5}), "optimizer.player", 100)
    params, gradient = {"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([0.3, -2.0])}
    ours, _ = built.transform.update(gradient, built.transform.init(params), params)
    theirs, _ = (tx := optax.adam(0.2, b1=0.5)).update(gradient, tx.init(params), params)
    np.testing.assert_allclose(-0.2 * ours["w"], theirs["w"], rtol=1e-6)


@pytest.mark.parametrize("width", [0.05, 0.1, 0.2])
def test_power_average_has_the_stated_width(width):
    """The weights of a power average over t steps have standard deviation width * t (EDM2, eq. 3)."""
    steps, decay = 4000, optim._power_decay(optim.power_exponent(width))
    decays = np.array([float(decay(jnp.float32(step))) for step in range(0, steps)])
    weights = (1 - decays) * np.append(np.cumprod(decays[::-1])[::-1][1:], 1.0)
    assert weights.sum() == pytest.approx(1.0, abs=1e-4)
    time = np.arange(1, steps + 1)
    mean = (weights * time).sum()
    assert np.sqrt((weights * (time - mean) ** 2).sum()) / steps == pytest.approx(width, rel=0.01)
