"""Inside nets: activations as recorded, images that units want, linear readers: known nets, planted answers."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent import rng
from latent.analysis import activation, layers
from latent.nets.conv import Conv, conv


class Net(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(Conv(self.width, (3, 3))(x))
        return Conv(2, (3, 3), name="last")(x)


def test_every_convolution_of_one_net_is_recorded_when_it_runs_first():
    first, second = Net(3), Net(4)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 5, 1)), jnp.float32)
    params = {
        "first": first.init(jax.random.key(0), x)["params"],
        "second": second.init(jax.random.key(1), x)["params"],
    }

    def function():
        second.apply({"params": params["second"]}, x)
        first.apply({"params": params["first"]}, x)
        first.apply({"params": params["first"]}, 2.0 * x)

    found = jax.jit(lambda: layers.recorded(function, params["first"]))()
    assert list(found) == ["Conv_0", "last"]
    own = params["first"]["Conv_0"]
    np.testing.assert_allclose(found["Conv_0"], conv(x, own["kernel"]) + own["bias"], atol=1e-5)
    np.testing.assert_allclose(found["last"], first.apply({"params": params["first"]}, x), atol=1e-5)
    assert layers.recorded(function, {"nothing": 0}) == {}


def test_maps_are_averaged_to_few_places():
    maps = np.arange(2 * 8 * 6 * 3, dtype=np.float64).reshape(2, 8, 6, 3)
    found = layers.pooled(maps, 2).reshape(2, 2, 2, 3)
    np.testing.assert_allclose(found[1, 0, 1], maps[1, :4, 3:].mean(axis=(0, 1)))
    np.testing.assert_allclose(layers.pooled(maps[:, :1, :1]), maps[:, 0, 0])


def test_a_linear_reader_finds_what_is_linear_and_nothing_else():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(400, 5)) * [1, 100, 1, 1, 1]
    linear, error = layers.probe(features, (features[:, 0] > 0).astype(int))
    round_, _ = layers.probe(features, (np.sum(features[:, 2:] ** 2, axis=1) > 2.4).astype(int))
    assert linear > 0.95 and error == pytest.approx(np.sqrt(linear * (1 - linear) / 200), abs=1e-9)
    assert round_ < 0.65


@pytest.mark.parametrize("shape", [(8, 8, 1), (6, 9, 3)])
def test_an_image_is_the_sigmoid_of_its_scaled_spectrum(shape):
    height, width, channels = shape
    spectrum = np.random.default_rng(0).normal(size=(2, height, width // 2 + 1, channels, 2))
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.maximum(np.hypot(rows, columns), 1 / max(height, width))[None, ..., None]
    logits = np.fft.irfft2((spectrum[..., 0] + 1j * spectrum[..., 1]) / frequency, (height, width), (1, 2), "ortho")
    found = activation.image(jnp.asarray(spectrum, jnp.float32), width)
    assert found.shape == (2, *shape)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), atol=1e-4)


def test_a_unit_gets_the_image_it_wants_and_images_do_not_meet():
    """A unit that weighs left against right wants light on the left; without jitter and at any count."""
    weights = jnp.stack([jnp.ones((6, 6, 1)), jnp.ones((6, 6, 1)).at[:, 3:].set(-1.0)])
    activate = lambda x: jnp.sum(x * weights[: len(x)], axis=(1, 2, 3)) / 36  # noqa: E731
    keys = rng.sample_keys(0, np.arange(2))
    both = np.asarray(activation.maximise(activate, (6, 6, 1), keys, jitter=0))
    assert both[0].mean() > 0.75
    assert both[1][:, :3].mean() > 0.8 and both[1][:, 3:].mean() < 0.2
    alone = np.asarray(activation.maximise(activate, (6, 6, 1), keys[:1], jitter=0))
    np.testing.assert_allclose(alone[0], both[0], atol=1e-4)


def test_jitter_moves_the_image_before_the_unit_sees_it():
    """A unit that wants one pixel gets its neighbours too, for it cannot know where it will look."""
    activate = lambda x: x[:, 3, 3, 0] - 0.2 * jnp.sum(x, axis=(1, 2, 3))  # noqa: E731
    keys = rng.sample_keys(0, np.arange(1))
    found = [activation.maximise(activate, (7, 7, 1), keys, 80, 0.1, jitter) for jitter in (0, 1)]
    still, moved = (np.asarray(x)[0, ..., 0] for x in found)
    beside = lambda x: (x[3, 2] + x[3, 4] + x[2, 3] + x[4, 3]) / 4  # noqa: E731
    assert still[3, 3] > 0.8 and beside(moved) > beside(still) + 0.02
