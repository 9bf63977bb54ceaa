"""The U-net: every grid, its published size, and requests it cannot serve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent.config import Section
from latent.errors import UserError
from latent.nets import unet
from tests.harness import thinned
from tests.nets.awake import count, draw, stirred

TINY = {
    "name": "unet",
    "channels": (8, 8),
    "num_blocks": 1,
    "attention_levels": (1,),
    "heads": 1,
    "self_conditioning": False,
}


def build(shape, num_classes=0, outputs=1, **changes):
    return unet.denoiser(Section(TINY | changes), shape, num_classes, outputs)


def shapes(net, shape):
    """Parameter and output shapes, computed without values."""
    x, t = jax.ShapeDtypeStruct((2, *shape), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.float32)
    y, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), x, t)
    return variables["params"], y.shape


@pytest.mark.parametrize(
    ("shape", "channels"),
    [
        ((8, 8, 4), (8, 8)),
        ((7, 7, 4), (8, 8, 8)),
        ((7, 5, 1), (8, 12)),
        ((28, 28, 1), (8, 8, 8)),
        ((32, 32, 3), (8, 8, 8, 8)),
        ((64, 64, 3), (8, 8, 8, 8)),
        ((1, 1, 4), (8,)),
    ],
)
@pytest.mark.parametrize("outputs", thinned([1, 2], {2}))
def test_it_gives_back_the_grid_it_was_given(shape, channels, outputs):
    net = build(shape, outputs=outputs, channels=channels, attention_levels=(len(channels) - 1,))
    assert shapes(net, shape)[1] == (2, *shape[:2], shape[2] * outputs)


def test_odd_sides_are_computed():
    net, x, t = build((7, 7, 2), channels=(8, 8, 8)), draw(2, 7, 7, 2), jnp.asarray([0.0, 1.0])
    params = stirred(net, x, t)
    y = jax.jit(lambda x: net.apply({"params": params}, x, t))
    # Every output pixel sees every input pixel: through the attention at the bottom and the skips.
    reach = jnp.abs(y(x.at[0, 0, 0].add(1.0)) - y(x))[0].max(-1)
    assert (np.asarray(reach) > 0).all()
    np.testing.assert_array_equal(y(x.at[0, 0, 0].add(1.0))[1], y(x)[1])


def test_it_has_the_parameters_of_ddpm():
    """DDPM's net for CIFAR-10 has 35,746,307. Ours scales where it only shifts: one more dense layer a block."""
    section = {"channels": (128, 256, 256, 256), "num_blocks": 2, "attention_levels": (1,)}
    params, _ = shapes(build((32, 32, 3), **section), (32, 32, 3))
    blocks = [part["modulation"] for name, part in params.items() if name.startswith("ResidualBlock")]
    assert len(blocks) == 4 * 2 + 2 + 4 * 3
    assert count(params) - sum(count(block) // 2 for block in blocks) == 35_746_307


def test_attention_sits_where_it_is_asked_for():
    def number(levels):
        return sum("Attention" in name for name in shapes(build((8, 8, 1), attention_levels=levels), (8, 8, 1))[0])

    assert [number(levels) for levels in [(), (0,), (1,), (0, 1)]] == [1, 4, 4, 7]  # one below, one two up, the middle


@pytest.mark.parametrize(
    ("shape", "changes", "words"),
    [
        ((6,), {}, r"needs grids \[h, w, c\], not \(6,\)"),
        ((4, 4, 1), {"channels": (8,) * 4}, "model.net.channels=.* 4 levels do not fit grids of 4x4"),
        ((4, 4, 1), {"channels": ()}, "model.net.channels"),
        ((4, 4, 1), {"channels": (8, -8)}, "positive integers"),
        ((4, 4, 1), {"attention_levels": (2,)}, r"model.net.attention_levels=\(2,\) must lie in 0 .. 1"),
        ((4, 4, 1), {"heads": 3}, "model.net.heads=3"),
        ((4, 4, 1), {"num_blocks": 0}, "model.net.num_blocks=0"),
    ],
)
def test_impossible_requests_are_refused(shape, changes, words):
    with pytest.raises(UserError, match=words):
        build(shape, **changes)
