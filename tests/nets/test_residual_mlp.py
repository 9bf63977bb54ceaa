"""The residual perceptron: modulation by its formula, its size, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent.config import Section
from latent.errors import UserError
from latent.nets import residual_mlp
from tests.nets.awake import awake, count, draw, initialise

SECTION = {"name": "residual_mlp", "width": 12, "depth": 3, "self_conditioning": True}


def test_a_block_starts_as_the_identity_and_is_its_formula():
    block, x, condition = residual_mlp.Block(), draw(4, 12), draw(4, 5, seed=1)
    params = initialise(block, x, condition)
    apply = jax.jit(lambda params: block.apply({"params": params}, x, condition))
    np.testing.assert_array_equal(apply(params), x)
    params = awake(params)
    affine = lambda name, x: x @ params[name]["kernel"] + params[name]["bias"]  # noqa: E731
    scale, shift = jnp.split(affine("modulation", condition), 2, axis=-1)
    normal = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6)
    expected = x + affine("Dense_1", jax.nn.silu(affine("Dense_0", normal * (1 + scale) + shift)))
    np.testing.assert_allclose(apply(params), expected, rtol=1e-4, atol=1e-5)


def test_width_and_depth_are_those_of_the_section():
    net = residual_mlp.denoiser(Section(SECTION), (7,), 10, outputs=2)
    params = initialise(net, draw(2, 7), jnp.zeros(2))
    assert sum("Block" in name for name in params) == 3
    conditioning = 2 * (12 * 12 + 12) + 11 * 12
    block = (12 * 24 + 24) + 2 * (12 * 12 + 12)
    ends = (14 * 12 + 12) + (12 * 24 + 24) + (12 * 14 + 14)
    assert count(params) == conditioning + 3 * block + ends
    reader = residual_mlp.denoiser(Section(SECTION), (7,), 10, outputs=2, num_words=5)
    reading = jax.eval_shape(reader.init, jax.random.key(0), draw(2, 7), jnp.zeros(2))["params"]
    assert count(reading) == count(params) + 6 * 12 + 2 * (12 * 12 + 12)


@pytest.mark.parametrize(
    ("shape", "changes", "words"),
    [
        ((4, 4, 1), {}, r"needs vector latents \[d\], not \(4, 4, 1\)"),
        ((4,), {"width": 0}, "model.net.width=0 must be a positive integer"),
        ((4,), {"depth": 1.5}, "model.net.depth=1.5 must be a positive integer"),
    ],
)
def test_impossible_requests_are_refused(shape, changes, words):
    with pytest.raises(UserError, match=words):
        residual_mlp.denoiser(Section(SECTION | changes), shape, 0)
