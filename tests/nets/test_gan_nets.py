"""Critics and generators: shapes, every example by itself, the heads, and what sets each net apart."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from latent import config
from latent.errors import UserError
from latent.nets import convnet, dcgan, mlp, r3gan, resampling, sngan
from tests.nets.awake import initialise, stirred

NETS = {"mlp": mlp, "convnet": convnet, "dcgan": dcgan, "sngan": sngan, "r3gan": r3gan}
SHAPE = (8, 8, 1)
X = jax.device_put(np.float32(np.random.default_rng(0).uniform(-1, 1, size=(3, *SHAPE))))
Z = jax.device_put(np.float32(np.random.default_rng(0).normal(size=(3, 5))))


def section(name, **changes):
    values = {"name": name, "hidden": (), "channels": (4, 6), "activation": "leaky_relu", "attention": 0}
    return config.Section(values | {"blocks": 2, "groups": 1, "resampling": "bilinear"} | changes)


def run(net, *inputs):
    return initialise(net, *inputs), jax.jit(net.apply)


@pytest.mark.parametrize("name", NETS)
def test_a_critic_has_its_heads_and_scores_every_example_alone(name):
    net = NETS[name].critic(section(name), SHAPE, (("score", 1), ("projection", 7)))
    params, apply = run(net, X)
    found = apply({"params": params}, X)
    assert {head: value.shape for head, value in found.items()} == {"score": (3, 1), "projection": (3, 7)}
    alone = apply({"params": params}, X[1:2])
    np.testing.assert_allclose(alone["projection"][0], found["projection"][1], atol=1e-5)
    assert np.ptp(found["projection"], axis=0).min() > 0
    assert list(jax.eval_shape(lambda: NETS[name].critic(section(name), SHAPE).init(jax.random.key(0), X))) == [
        "params"
    ]


@pytest.mark.parametrize("name", NETS)
def test_a_generator_makes_every_sample_alone(name):
    net = NETS[name].generator(section(name), SHAPE)
    params, apply = stirred(net, Z), jax.jit(net.apply)
    found = apply({"params": params}, Z)
    assert found.shape == (3, *SHAPE) and np.ptp(found, axis=0).max() > 0
    np.testing.assert_allclose(apply({"params": params}, Z[1:2])[0], found[1], atol=1e-5)


@pytest.mark.parametrize("name", ["dcgan", "sngan", "r3gan"])
def test_oblong_images_fit_and_odd_ones_do_not(name):
    shape = (4, 8, 2)
    found = jax.eval_shape(lambda: NETS[name].generator(section(name), shape).init_with_output(jax.random.key(0), Z)[0])
    assert found.shape == (3, *shape)
    for wrong in ((9, 8, 1), (5,)):
        with pytest.raises(UserError, match=r"model\.net"):
            NETS[name].critic(section(name), wrong)


def test_attention_starts_as_the_identity_and_is_where_it_was_asked_for():
    plain, apply = run(sngan.critic(section("sngan"), SHAPE), X)
    attentive, apply_attentive = run(sngan.critic(section("sngan", attention=4), SHAPE), X)
    np.testing.assert_allclose(
        apply({"params": plain}, X)["score"], apply_attentive({"params": attentive}, X)["score"], atol=1e-6
    )
    assert set(attentive) - set(plain) == {"GridAttention_0"}
    assert "GridAttention_0" in run(sngan.generator(section("sngan", attention=4), SHAPE), Z)[0]
    with pytest.raises(UserError, match=r"model.net.attention=8 .*\[4, 2\]"):
        sngan.critic(section("sngan", attention=8), SHAPE)


def test_the_blocks_of_r3gan_start_as_identities_and_depth_needs_no_norm():
    """So a deeper net gives the same scores at first, and no layer normalises."""
    shallow, apply = run(r3gan.critic(section("r3gan", blocks=1), SHAPE), X)
    deep, apply_deep = run(r3gan.critic(section("r3gan", blocks=3), SHAPE), X)
    shared = {name: shallow[name] for name in shallow if not name.startswith("Block")}
    np.testing.assert_allclose(
        apply({"params": shallow}, X)["score"], apply_deep({"params": {**deep, **shared}}, X)["score"], atol=1e-6
    )
    first = lambda params: params["Block_0"]["Conv_1"]["kernel"]  # noqa: E731
    ratio = np.std(first(deep)) / np.std(first(shallow))
    assert ratio == pytest.approx((6 / 2) ** -0.25, rel=0.2)  # 6 blocks against 2
    assert not any("Norm" in part for path in flatten_dict(deep) for part in path)


def test_the_groups_of_r3gan_are_blocks_of_the_kernel():
    params, _ = run(r3gan.critic(section("r3gan", channels=(8, 8), groups=4), SHAPE), X)
    kernels = [name for name, value in params["Block_0"].items() if value["kernel"].shape == (3, 3, 4, 4)]
    assert len(kernels) == 4
    for key, value in (("groups", 3), ("blocks", 0), ("resampling", "cubic")):
        with pytest.raises(UserError, match=f"model.net.{key}="):
            r3gan.critic(section("r3gan", **{key: value}), SHAPE)


@pytest.mark.parametrize("name", resampling.UP)
def test_resampling_keeps_constants_and_ramps(name):
    """Halving what was doubled: exact for the nearest, and for both on a linear ramp away from the border."""
    ramp = jnp.arange(8.0)[None, :, None, None] * jnp.ones((1, 8, 8, 2))
    back = resampling.DOWN[name](resampling.UP[name](ramp))
    np.testing.assert_allclose(back[:, 2:-2], ramp[:, 2:-2], atol=1e-5)
    np.testing.assert_allclose(resampling.UP[name](jnp.ones((1, 2, 3, 1))), np.ones((1, 4, 6, 1)), atol=1e-6)
    np.testing.assert_allclose(resampling.DOWN[name](jnp.ones((1, 4, 6, 1))), np.ones((1, 2, 3, 1)), atol=1e-6)
