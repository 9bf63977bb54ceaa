"""What a user's sampling options become: programs that are compiled once, the same numbers however the steps run."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from latent import config, loops, rng
from latent.models import latent_ddpm
from latent.types import DataSpec
from tests import harness

NETS = {
    "unet": {"model.net.channels": (8, 8), "model.net.attention_levels": (1,), "model.net.num_blocks": 1},
    "residual_mlp": {},
}
each = pytest.mark.parametrize("net", [pytest.param("unet", marks=pytest.mark.slow), *(set(NETS) - {"unet"})])


def build(net, **changes):
    """A model of 2 classes whose net is not the zero it starts as; a new one each time, with nothing compiled."""
    shape = (4, 4, 1) if net == "unet" else (4,)
    changes = {"model.net.name": net, "model.net.self_conditioning": False, **NETS[net], **changes}
    settings = config.load("configs/latent_ddpm.py:tiny", changes)
    spec = DataSpec("toy", shape, 2, 64, np.zeros(shape, np.float32), "real")
    model = latent_ddpm.build(config.Section(settings.model.to_dict()), spec)
    params, extra = jax.jit(model.init)(harness.key(0), {"x": jnp.zeros((1, *shape))})
    leaves, tree = jax.tree.flatten(params)
    moved = [leaf + 0.2 * np.random.default_rng(i).normal(size=leaf.shape) for i, leaf in enumerate(leaves)]
    return model, tree.unflatten([jnp.asarray(leaf, jnp.float32) for leaf in moved]), extra


@pytest.fixture
def compilations():
    """A function that counts what was compiled since it was last called."""
    events = []
    listener = lambda event, *_, **__: events.append(event)  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listener)

    def count():
        found = sum("backend_compile" in event for event in events)
        events.clear()
        return found

    yield count
    jax.monitoring.unregister_event_duration_listener(listener)


@pytest.mark.slow
@each
def test_a_second_call_compiles_nothing_and_steps_cost_no_compilation(net, compilations):
    model, params, extra = build(net)
    keys = rng.sample_keys(0, np.arange(3))
    draw = lambda steps: jax.block_until_ready(model.sample(params, extra, keys, None, steps=steps))  # noqa: E731
    draw(2)
    assert compilations() > 0
    draw(2)
    assert compilations() == 0
    draw(3)
    short = compilations()
    draw(30)
    assert compilations() <= short + 3  # a few operations on the grid; no step is compiled anew


@each
def test_the_loop_and_single_steps_give_the_same_samples(net, monkeypatch):
    found = []
    for scan in (True, False):
        monkeypatch.setattr(loops, "rollable", lambda *_, scan=scan: scan)
        model, params, extra = build(net)
        found.append(model.sample(params, extra, rng.sample_keys(0, np.arange(4)), None, sampler="ddpm", guidance=2.0))
    assert np.abs(found[0]).max() > 0.1
    np.testing.assert_allclose(found[0], found[1], atol=2e-5)


@pytest.mark.parametrize(("net", "scans"), [("unet", 0), ("residual_mlp", 1)])
def test_convolutions_on_cpu_are_stepped_and_everything_else_is_a_loop(net, scans):
    model, params, extra = build(net, **{"model.schedule.name": "continuous_cosine"})  # a table is searched in a loop
    program = jax.make_jaxpr(lambda keys: model.sample(params, extra, keys))(rng.sample_keys(0, np.arange(2)))
    assert str(program).count("scan[") == scans


@each
def test_a_sample_is_its_keys_whatever_batch_and_however_many_devices(net):
    model, params, extra = build(net)
    keys = rng.sample_keys(0, np.arange(8))
    alone = model.sample(params, extra, keys, None, sampler="ddpm")
    np.testing.assert_allclose(model.sample(params, extra, keys[3:5], None, sampler="ddpm"), alone[3:5], atol=2e-5)
    mesh = Mesh(np.asarray(jax.devices()), ("data",))
    split, everywhere = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    placed = jax.device_put((params, extra), everywhere)
    spread = model.sample(*placed, jax.device_put(keys, split), None, sampler="ddpm")
    assert len(spread.sharding.device_set) == 8 and not spread.is_fully_replicated
    np.testing.assert_allclose(spread, alone, atol=2e-5)
