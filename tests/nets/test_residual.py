"""Group norm against flax, blocks that start as the identity, and grids of any side."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent.nets.conv import Conv
from latent.nets.residual import Downsample, GroupNorm, ResidualBlock, Upsample, group_count
from tests.nets.awake import awake, draw, initialise


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (3, 1), (8, 2), (48, 12), (64, 16), (100, 25), (128, 32), (130, 2), (320, 32)]
)
def test_groups_divide_the_channels(channels, groups):
    assert group_count(channels) == groups and channels % groups == 0


@pytest.mark.parametrize("channels", [3, 8, 24])
def test_group_norm_is_that_of_flax(channels):
    x = 3.0 + draw(2, 4, 5, channels)
    params = awake(initialise(GroupNorm(), x))
    theirs = nn.GroupNorm(group_count(channels))
    ours, other = (
        jax.jit(jax.value_and_grad(lambda p, x, net=net: jnp.sum(jnp.sin(net.apply({"params": p}, x))), (0, 1)))
        for net in (GroupNorm(), theirs)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), ours(params, x), other(params, x))


def test_group_norm_keeps_its_precision_far_from_zero():
    """The variance of centred values: E[x^2] - E[x]^2 would have lost it here."""
    x = draw(2, 8, 8, 4)
    params = initialise(GroupNorm(), x)
    apply = jax.jit(lambda x: GroupNorm().apply({"params": params}, x))
    np.testing.assert_allclose(apply(x + 4000.0), apply(x), atol=5e-3)


@pytest.mark.parametrize("conditioned", [False, True])
def test_a_block_starts_as_the_identity(conditioned):
    x, condition = draw(2, 4, 5, 8), draw(2, 6) if conditioned else None
    net = ResidualBlock(8)
    params = initialise(net, x, condition)
    apply = jax.jit(lambda params, condition: net.apply({"params": params}, x, condition))
    np.testing.assert_array_equal(apply(params, condition), x)
    assert ("modulation" in params) == conditioned
    if conditioned:
        params = awake(params)
        assert float(jnp.abs(apply(params, condition) - apply(params, condition + 1.0)).max()) > 1e-3


def test_a_block_that_changes_the_width_starts_as_its_shortcut():
    x, net = draw(2, 4, 5, 8), ResidualBlock(6)
    params = initialise(net, x)
    expected = x @ params["shortcut"]["kernel"][0, 0]
    np.testing.assert_allclose(net.apply({"params": params}, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", [(7, 4), (1, 5), (8, 8)])
def test_up_undoes_the_sides_of_down(side):
    x = draw(1, *side, 3)
    down, up = Downsample(), Upsample(side)
    small = jax.jit(down.apply)({"params": initialise(down, x)}, x)
    assert small.shape == (1, -(-side[0] // 2), -(-side[1] // 2), 3)
    assert jax.jit(up.apply)({"params": initialise(up, small)}, small).shape == x.shape


def test_up_repeats_pixels():
    x, net = draw(1, 2, 3, 2), Upsample()
    params = initialise(net, x)
    kernel = jnp.zeros((3, 3, 2, 2)).at[1, 1].set(jnp.eye(2))  # the convolution as the identity
    found = net.apply({"params": {"Conv_0": {"kernel": kernel, "bias": jnp.zeros(2)}}}, x)
    np.testing.assert_array_equal(found, x.repeat(2, 1).repeat(2, 2))
    assert params["Conv_0"]["kernel"].shape == kernel.shape


@pytest.mark.parametrize("size", [None, (4, 6), (3, 6), (4, 5), (3, 5)])
def test_up_is_the_convolution_of_the_doubled_and_cropped_image(size):
    x, net = draw(2, 2, 3, 4), Upsample(size)
    params = awake(initialise(net, x))
    height, width = size or (4, 6)
    expected = Conv(4, (3, 3)).apply({"params": params["Conv_0"]}, x.repeat(2, 1).repeat(2, 2)[:, :height, :width])
    np.testing.assert_allclose(net.apply({"params": params}, x), expected, rtol=1e-4, atol=1e-5)
