"""The convolutional first stage: every size there and back, its output bias, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent.config import Section
from latent.errors import UserError
from latent.nets import spatial
from tests.harness import thinned
from tests.nets.awake import draw, initialise, stirred

TINY = {"name": "spatial", "channels": (4, 8), "num_blocks": 1, "attention": True}
HEADS = (("mean", 3), ("log_scale", 3))


def build(shape, bias=None, **changes):
    section = Section(TINY | changes)
    bias = np.zeros(shape, np.float32) if bias is None else bias
    return (
        spatial.encoder(section, shape, HEADS),
        spatial.decoder(section, shape, bias),
        spatial.latent_shape(section, shape, 3),
    )


@pytest.mark.parametrize("size", thinned([8, 28, 32, 40, 64, 96, 128, 256], {8, 28, 40, 256}))
@pytest.mark.parametrize("stages", thinned([1, 2, 3, 4], {2, 4}))
def test_every_size_goes_there_and_back(size, stages):
    factor, shape = 2 ** (stages - 1), (size, size, 3)
    if size % factor:
        with pytest.raises(UserError, match=r"model\.net\.channels=\(4, 4, 4, 4\)"):
            build(shape, channels=(4,) * stages)
        return
    encoder, decoder, latent_shape = build(shape, channels=(4,) * stages)
    assert latent_shape == (size // factor, size // factor, 3)
    x, key = jax.ShapeDtypeStruct((2, *shape), jnp.float32), jax.random.key(0)
    heads = jax.eval_shape(lambda: encoder.init_with_output(key, jnp.zeros(x.shape))[0])
    assert {name: head.shape for name, head in heads.items()} == {name: (2, *latent_shape) for name, _ in HEADS}
    image = jax.eval_shape(lambda: decoder.init_with_output(key, jnp.zeros((2, *latent_shape)))[0])
    assert image.shape == x.shape


def test_an_oblong_image_keeps_its_sides():
    assert build((8, 12, 1), channels=(4, 4, 4))[2] == (2, 3, 3)


def test_examples_are_independent_and_gradients_reach_every_parameter():
    encoder, decoder, _ = build((8, 8, 1))
    x, z = draw(3, 8, 8, 1), draw(3, 4, 4, 3, seed=1)
    params = {"encoder": stirred(encoder, x), "decoder": stirred(decoder, z)}

    @jax.jit
    def loss(params, x):
        heads = encoder.apply({"params": params["encoder"]}, x)
        images = decoder.apply({"params": params["decoder"]}, heads["mean"])
        return jnp.mean((images - x) ** 2) + jnp.mean(heads["log_scale"] ** 2), (heads, images)

    gradients = jax.device_get(jax.jit(jax.grad(lambda p: loss(p, x)[0]))(params))
    assert all(np.isfinite(leaf).all() and np.any(leaf != 0) for leaf in jax.tree.leaves(gradients))
    together, others = loss(params, x)[1], loss(params, x.at[1:].set(7.0))[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b[0], rtol=1e-5, atol=1e-6), together, others)


def test_the_output_bias_is_one_number_per_pixel():
    bias = np.float32(draw(8, 8, 1))
    _, decoder, _ = build((8, 8, 1), bias)
    params = initialise(decoder, np.zeros((1, 4, 4, 3), np.float32))
    np.testing.assert_array_equal(params["output_bias"], bias)
    # Without what the last convolution adds, the image is the bias.
    params["output"]["kernel"] = np.zeros_like(params["output"]["kernel"])
    image = jax.jit(decoder.apply)({"params": params}, draw(2, 4, 4, 3))
    np.testing.assert_allclose(image, np.broadcast_to(bias, (2, 8, 8, 1)))


def test_attention_lets_every_latent_see_the_whole_image():
    """Without it a corner of a large latent does not see the opposite corner, with it it does."""
    for attention in (False, True):
        encoder, _, _ = build((64, 64, 1), channels=(4, 4), attention=attention)
        x = draw(1, 64, 64, 1)
        params = stirred(encoder, x)
        # Group norms see all pixels too: a permutation within a group's reach keeps their statistics.
        swapped = x.at[0, 60, 60].set(x[0, 62, 62]).at[0, 62, 62].set(x[0, 60, 60])
        assert any("Attention" in name for name in params["Middle_0"]) == attention
        mean = jax.jit(lambda x, net=encoder, p=params: net.apply({"params": p}, x)["mean"])
        assert mean(swapped).shape == (1, 32, 32, 3)


@pytest.mark.parametrize(
    ("shape", "changes", "words"),
    [
        ((6,), {}, r"needs images \[H, W, C\]"),
        ((7, 8, 1), {}, r"model.net.channels=\(4, 8\): the sides of 7x8 images"),
        ((8, 8, 1), {"channels": ()}, r"model.net.channels=\(\)"),
        ((8, 8, 1), {"num_blocks": 0}, "model.net.num_blocks=0"),
    ],
)
def test_impossible_requests_are_refused(shape, changes, words):
    with pytest.raises(UserError, match=words):
        build(shape, **changes)
