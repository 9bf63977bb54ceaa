"""The diffusion transformer: published sizes, patches that come back, adaLN-Zero, and what it refuses."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent.config import Section
from latent.errors import UserError
from latent.nets import dit
from tests.harness import thinned
from tests.nets.awake import awake, count, draw, initialise, stirred

TINY = {
    "name": "dit",
    "patch": 2,
    "width": 16,
    "depth": 3,
    "heads": 2,
    "qk_norm": False,
    "remat": False,
    "self_conditioning": False,
}


def build(shape, num_classes=0, outputs=1, **changes):
    return dit.denoiser(Section(TINY | changes), shape, num_classes, outputs)


def shapes(net, shape):
    x, t = jax.ShapeDtypeStruct((2, *shape), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.float32)
    y, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), x, t)
    return variables["params"], y.shape


def expected_count(depth, width, patch=2, channels=4, outputs=2, classes=1000):
    dense = lambda inputs, features: (inputs + 1) * features  # noqa: E731
    attention = dense(width, 3 * width) + dense(width, width)
    perceptron = dense(width, 4 * width) + dense(4 * width, width)
    condition = dense(256, width) + dense(width, width) + (classes + 1) * width
    ends = dense(patch**2 * channels, width) + dense(width, patch**2 * channels * outputs) + dense(width, 2 * width)
    return depth * (attention + perceptron + dense(width, 6 * width)) + condition + ends


@pytest.mark.parametrize(
    ("depth", "width", "heads", "millions"),
    [(12, 384, 6, 33), (12, 768, 12, 130), (24, 1024, 16, 458), (28, 1152, 16, 675)],
    ids=["S/2", "B/2", "L/2", "XL/2"],
)
def test_the_papers_sizes_have_the_papers_parameters(depth, width, heads, millions):
    """Table 1 of Peebles & Xie 2023: latents of 256x256 ImageNet, learned variance."""
    net = build((32, 32, 4), num_classes=1000, outputs=2, depth=depth, width=width, heads=heads)
    params, shape = shapes(net, (32, 32, 4))
    assert shape == (2, 32, 32, 8)
    assert count(params) == expected_count(depth, width)
    assert round(count(params) / 1e6) == millions


@pytest.mark.parametrize(
    ("shape", "patch"),
    [
        ((8, 8, 4), 2),
        ((7, 7, 4), 1),
        ((7, 7, 4), 7),
        ((8, 4, 1), 4),
        ((32, 32, 3), 4),
        ((64, 64, 3), 8),
        ((16,), 4),
        ((6,), 1),
    ],
)
@pytest.mark.parametrize("outputs", thinned([1, 2], {2}))
def test_it_gives_back_the_shape_it_was_given(shape, patch, outputs):
    net = build(shape, outputs=outputs, patch=patch)
    assert shapes(net, shape)[1] == (2, *shape[:-1], shape[-1] * outputs)


def test_patches_come_back():
    x = draw(2, 6, 4, 3)
    tokens = dit.patchify(x, (3, 2))
    np.testing.assert_array_equal(tokens[1, 3], x[1, 3:6, 2:4].reshape(-1))  # second row of patches, second column
    np.testing.assert_array_equal(dit.unpatchify(tokens, (3, 2), (6, 4)), x)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_a_block_starts_as_the_identity(qk_norm):
    block, x, condition = dit.Block(2, qk_norm), draw(2, 5, 8), draw(2, 6)
    params = initialise(block, x, condition)
    apply = jax.jit(lambda params: block.apply({"params": params}, x, condition))
    np.testing.assert_array_equal(apply(params), x)
    assert np.abs(np.asarray(apply(awake(params))) - np.asarray(x)).max() > 0.01


def test_blocks_differ_and_follow_one_another():
    """The scan over blocks is a loop over their slices of the parameters, the same when rolled or recomputed."""
    net, x, t = build((4, 4, 2)), draw(3, 4, 4, 2), jax.device_put(np.float32([0.1, 0.5, 0.9]))
    params = stirred(net, x, t)
    tokens, condition, block = draw(3, 4, 16), draw(3, 16, seed=1), dit.Block(2, False)
    assert jax.tree.leaves(params["blocks"])[0].shape[0] == TINY["depth"]
    expected = tokens
    for i in range(TINY["depth"]):
        one = jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], params["blocks"])
        expected = jax.jit(block.apply)({"params": one}, expected, condition)

    class Blocks(dit.DiT):
        @nn.compact
        def __call__(self, tokens, condition):
            return self._blocks(tokens, condition)

    only = Blocks(
        **{field: getattr(net, field) for field in dit.DiT.__annotations__ if field not in ("parent", "name")}
    )
    blocks = jax.jit(lambda: only.apply({"params": {"blocks": params["blocks"]}}, tokens, condition))
    np.testing.assert_allclose(blocks(), expected, rtol=1e-4, atol=1e-4)
    kernels = initialise(net, x, t)["blocks"]["attention"]["qkv"]["kernel"]
    assert np.abs(np.diff(kernels[:2], axis=0)).max() > 0.1


def test_recomputing_changes_nothing_but_memory():
    x, t = draw(3, 4, 4, 2), jax.device_put(np.float32([0.1, 0.5, 0.9]))
    nets = [build((4, 4, 2), remat=remat) for remat in (False, True)]
    params = stirred(nets[0], x, t)
    plain, recomputed = (
        jax.jit(jax.grad(lambda p, net=net: jnp.mean(net.apply({"params": p}, x, t) ** 2)))(params) for net in nets
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), plain, recomputed)


@pytest.mark.parametrize(
    ("shape", "changes", "words"),
    [
        ((4, 4), {}, r"needs grids \[h, w, c\] or vectors \[d\], not \(4, 4\)"),
        ((7, 7, 4), {}, "model.net.patch=2 must divide"),
        ((15,), {"patch": 4}, "model.net.patch=4 must divide"),
        ((4, 4, 1), {"width": 18}, "model.net.width=18 must be a multiple of 4"),
        ((4, 4, 1), {"heads": 3}, "model.net.heads=3"),
        ((4, 4, 1), {"depth": 0}, "model.net.depth=0"),
    ],
)
def test_impossible_requests_are_refused(shape, changes, words):
    with pytest.raises(UserError, match=words):
        build(shape, **changes)
