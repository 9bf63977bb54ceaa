"""Sinusoids against published values and their definition."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent.nets.embeddings import Conditioning, Words, grid_positions, sinusoidal
from latent.types import Condition
from tests.nets.awake import draw, initialise, stirred

REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "embeddings.npz")


@pytest.mark.parametrize("size", [32, 33])
def test_times_are_embedded_as_in_the_literature(size):
    found = jax.jit(lambda t: sinusoidal(t, size))(jnp.float32(REFERENCE["t"]))
    np.testing.assert_allclose(found, REFERENCE[f"size_{size}"], atol=2e-4)  # float32 angles of up to 999


def test_one_number_holds_no_sinusoid():
    np.testing.assert_array_equal(sinusoidal(jnp.ones(2), 1), np.zeros((2, 1)))


def test_the_time_of_a_denoiser_is_embedded_in_thousandths():
    """t = 0.5 and step 500 are the same: the MLP, undone by hand, sees the published embedding."""
    net = Conditioning(width=8, frequencies=32, num_classes=0)
    t = jnp.float32(REFERENCE["t"]) / 1000
    params = initialise(net, t)
    hidden = REFERENCE["size_32"] @ params["time_1"]["kernel"] + params["time_1"]["bias"]
    expected = jax.nn.silu(hidden) @ params["time_2"]["kernel"] + params["time_2"]["bias"]
    np.testing.assert_allclose(net.apply({"params": params}, t), expected, atol=1e-3)


def test_a_label_adds_its_row():
    net = Conditioning(width=8, frequencies=6, num_classes=4)
    t, label = jnp.zeros(3), jnp.asarray([2, 0, 4])
    params = initialise(net, t)
    params["label"]["embedding"] = draw(5, 8)
    apply = jax.jit(lambda label: net.apply({"params": params}, t, Condition(label)))
    plain = apply(label) - draw(5, 8)[label]
    np.testing.assert_allclose(plain, jnp.broadcast_to(plain[0], (3, 8)), atol=1e-6)


def test_a_text_is_the_mean_of_its_words_and_padding_is_none():
    net, table = Words(width=4, num_words=5), draw(6, 4)
    ask = lambda *rows: net.apply({"params": {"table": {"embedding": table}}}, jnp.asarray(rows))  # noqa: E731
    np.testing.assert_allclose(ask([3, 1, -1], [2, -1, -1]), [(table[3] + table[1]) / 2, table[2]], rtol=1e-6)
    np.testing.assert_allclose(ask([3, 1]), ask([1, -1, 3, -1, -1, -1]), rtol=1e-6)  # order and padding tell nothing
    np.testing.assert_allclose(ask([3, 3, 1]), [(2 * table[3] + table[1]) / 3], rtol=1e-6)
    np.testing.assert_array_equal(ask([-1, -1], [5, -1]), [table[5], table[5]])
    assert np.isnan(ask([6, 1])).all()


def test_text_joins_time_and_label_by_a_perceptron_of_its_own():
    """Undone by hand; told nothing is a text without words; a token of its own where they are not joined."""
    t, label, text = jnp.zeros(2), jnp.asarray([1, 2]), jnp.asarray([[0, 2, -1], [-1, -1, -1]])
    sizes = {"width": 8, "frequencies": 6, "num_classes": 3, "num_words": 4}
    params = stirred(Conditioning(**sizes), t)
    ask = lambda told, **other: Conditioning(**sizes | other).apply({"params": params}, t, told)  # noqa: E731
    table = params["words"]["table"]["embedding"]
    mean = jnp.stack([(table[0] + table[2]) / 2, table[4]])
    hidden = jax.nn.silu(mean @ params["text_1"]["kernel"] + params["text_1"]["bias"])
    words = hidden @ params["text_2"]["kernel"] + params["text_2"]["bias"]
    without = ask(Condition(label, text), num_words=0)
    np.testing.assert_allclose(ask(Condition(label, text)), without + words, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ask(Condition(label))[1], ask(Condition(label, text))[1], atol=1e-6)
    np.testing.assert_allclose(ask(Condition(label, text), joined=False)[:, 2], words, rtol=1e-5, atol=1e-5)


def test_an_axis_of_a_grid_depends_on_its_own_place_alone():
    table = grid_positions((3, 4), 16).reshape(3, 4, 16)
    np.testing.assert_array_equal(table[:, :1, :8].repeat(4, 1), table[..., :8])
    np.testing.assert_array_equal(table[:1, :, 8:].repeat(3, 0), table[..., 8:])
    np.testing.assert_allclose(table[:, 0, :8], sinusoidal(jnp.arange(3.0), 8), atol=1e-6)
    np.testing.assert_allclose(grid_positions((5,), 10), sinusoidal(jnp.arange(5.0), 10), atol=1e-6)
