"""Drivers: mesh and fsdp compute what pmap computes, and fsdp holds a share of the state on every device."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import latent
from latent import build, config, parallel
from latent.errors import UserError
from latent.train import alone, train
from tests import harness, toys

PAIR = toys.adversarial(every=2)
WIDE = {"model.net.hidden": (64,), "parallel.driver": "mesh", "parallel.fsdp": True, "log.images": 0}


def settings(**overrides):
    return config.load("configs/vae.py:tiny", {"log.images": 0, **overrides}).to_dict()


@pytest.mark.parametrize(("devices", "fsdp"), [pytest.param(1, False, marks=pytest.mark.slow), (8, False), (8, True)])
def test_the_global_view_computes_what_pmap_computes(devices, fsdp, monkeypatch):
    """Batch-coupled terms, two players, a vector in `extra`; SGD, for Adam would hide a constant factor."""
    monkeypatch.setattr(parallel, "LEAST", 8)
    reference, losses = harness.train(PAIR, 5, devices=8)
    state, other = harness.train(PAIR, 5, devices=devices, driver="mesh", fsdp=fsdp)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), reference, state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), losses, other)


def test_fsdp_splits_the_longest_axis_that_the_devices_divide():
    assert parallel.fsdp_spec((64, 128), 8) == PartitionSpec(None, "data")
    assert parallel.fsdp_spec((128, 64), 8) == PartitionSpec("data")
    assert parallel.fsdp_spec((3, 3, 512, 7), 8) == PartitionSpec(None, None, "data")
    assert parallel.fsdp_spec((63, 129), 8) == PartitionSpec()  # nothing divides
    assert parallel.fsdp_spec((8, 8), 8) == PartitionSpec()  # too small to be worth it
    assert parallel.fsdp_spec((), 8) == PartitionSpec()


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    changed = settings(**WIDE)
    training = alone(build.build(changed), build.driver(changed), tmp_path_factory.mktemp("run"))
    yield training
    training.__exit__(None, None, None)


def test_a_device_holds_its_share_of_large_arrays(training):
    """Parameters and optimiser state: at most an eighth and 5% a device, before and after a step."""
    inputs = training.driver.place(training.feed.inputs(0, training.count))
    state, _ = training.dispatches[0](training.state, training.seed, training.resident, inputs)
    large = [leaf for leaf in jax.tree.leaves((state.params, state.opt)) if leaf.size >= parallel.LEAST]
    assert len(large) >= 6  # two kernels, their first and second moments
    for leaf in large:
        held = {shard.device: shard.data.nbytes for shard in leaf.addressable_shards}
        assert len(held) == 8 and max(held.values()) <= leaf.nbytes / 8 * 1.05
    training.state = state


def test_the_program_gathers_what_it_needs(training):
    inputs = training.driver.place(training.feed.inputs(0, training.count))
    program = training.dispatches[0].lower(training.state, training.seed, training.resident, inputs).compile().as_text()
    assert "all-gather" in program and "all-reduce" in program


@pytest.mark.slow
def test_a_run_goes_on_under_another_driver(tmp_path):
    """A checkpoint of fsdp continues under pmap and the other way round; the numbers are those of one run."""
    base = {"optimizer.autoencoder.name": "sgd", "checkpoint.every": 2, "eval.every": 0, "model.net.hidden": (64,)}
    base |= {"optimizer.autoencoder.schedule.horizon": 4}
    mesh = {"parallel.driver": "mesh", "parallel.fsdp": True}
    assert train(settings(**base, **{"train.steps": 4}), tmp_path / "whole") == 0
    for name, first, second in (("to_pmap", mesh, {}), ("to_mesh", {}, mesh)):
        assert train(settings(**base, **first, **{"train.steps": 2}), tmp_path / name) == 0
        assert train(settings(**base, **second, **{"train.steps": 4}), tmp_path / name) == 0
        one, other = (latent.load(tmp_path / run).state.params for run in ("whole", name))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one, other)


def test_fsdp_needs_the_mesh_and_unknown_drivers_are_named():
    with pytest.raises(UserError, match=r"parallel.fsdp=True needs parallel.driver='mesh'"):
        parallel.build("pmap", 1, 8, fsdp=True)
    with pytest.raises(UserError, match="Allowed: mesh, pmap"):
        parallel.build("meh", 1, 8)
