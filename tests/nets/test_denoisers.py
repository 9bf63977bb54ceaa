"""What every denoiser promises, whatever it is made of: each module of latent.nets with the symbol is held to it."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent import config
from latent.nets.embeddings import grid_positions
from latent.types import UNTOLD, Condition
from tests.nets.awake import awake, draw, initialise, stirred

CLASSES, NUM_WORDS = 3, 5
SECTIONS = {
    "residual_mlp": {"width": 16, "depth": 2},
    "unet": {"channels": (8, 12), "num_blocks": 1, "attention_levels": (1,), "heads": 2},
    "dit": {"patch": 1, "width": 16, "depth": 2, "heads": 2, "qk_norm": True, "remat": False},
    "uvit": {"patch": 2, "width": 16, "depth": 3, "heads": 2, "qk_norm": False},
}
SHAPES = {"residual_mlp": [(6,)], "unet": [(5, 4, 2)], "dit": [(4, 4, 2), (6,)], "uvit": [(4, 4, 2)]}
CASES = [
    pytest.param(name, shape, marks=pytest.mark.slow if number else ())  # a second shape of the same net
    for name, shapes in SHAPES.items()
    for number, shape in enumerate(shapes)
]
each = pytest.mark.parametrize(("name", "shape"), CASES)
# These compile longest: what is read off any denoiser alike is a slow test of them.
HEAVY = ("unet", "uvit")
LIGHT = [case if case.values[0] not in HEAVY else pytest.param(*case.values, marks=pytest.mark.slow) for case in CASES]
each_light = pytest.mark.parametrize(("name", "shape"), LIGHT)


def build(name, shape, num_classes=CLASSES, outputs=1, self_conditioning=True, num_words=NUM_WORDS):
    section = config.Section(SECTIONS[name] | {"name": name, "self_conditioning": self_conditioning})
    make = config.select("latent.nets", name, "denoiser", "model.net.name")
    return make(section, shape, num_classes, outputs, num_words)


def inputs(shape, count=4):
    t, label = np.linspace(0.0, 1.0, count, dtype=np.float32), np.arange(count, dtype=np.int32) % CLASSES
    text = np.int32([[0, 1, -1], [2, -1, -1], [3, 4, 0], [1, 1, -1]])[:count]
    return draw(count, *shape), *jax.device_put((t, Condition(label, text))), draw(count, *shape, seed=1)


@functools.cache
def trained(name, shape, **options):
    """Parameters off their zeros, and the compiled net: what several tests ask for is compiled once."""
    net = build(name, shape, **options)
    params = stirred(net, *inputs(shape))
    compiled = jax.jit(lambda params, *given: net.apply({"params": params}, *given))
    return params, lambda *given, params=params: jax.device_get(compiled(params, *given))


def test_every_denoiser_is_held_to_this_protocol():
    modules = [name for name in config.names("latent.nets")]
    found = [name for name in modules if hasattr(importlib.import_module(f"latent.nets.{name}"), "denoiser")]
    assert set(found) == set(SECTIONS)


@each
def test_several_outputs_are_so_many_channels(name, shape):
    net = build(name, shape, outputs=2)
    y, _ = jax.eval_shape(net.init_with_output, jax.random.key(0), *inputs(shape))
    assert (y.shape, y.dtype) == ((4, *shape[:-1], 2 * shape[-1]), jnp.float32)


@each_light
def test_it_starts_at_zero_and_learns_from_there(name, shape):
    net = build(name, shape)
    given, params = inputs(shape), initialise(net, *inputs(shape))
    target = draw(4, *shape)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(params):
        y = net.apply({"params": params}, *given)
        return jnp.mean((y - target) ** 2), y

    (_, y), _ = loss(params)
    assert y.shape == target.shape and y.dtype == jnp.float32
    np.testing.assert_array_equal(y, 0.0)
    gradients = jax.device_get(loss(awake(params, 0.01))[1])
    assert all(np.isfinite(leaf).all() and np.any(leaf != 0) for leaf in jax.tree.leaves(gradients))


@each_light
def test_no_example_sees_another(name, shape):
    _, apply = trained(name, shape)
    x, t, told, previous = inputs(shape)
    together = apply(x, t, told, previous)
    one = lambda i: jax.tree.map(lambda part: part[i : i + 1], (x, t, told, previous))  # noqa: E731
    alone = np.concatenate([apply(*one(i)) for i in range(4)])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    stirred_rest = jax.tree.map(lambda part: part.at[1:].set(2), told)
    others = apply(x.at[1:].set(50.0), t.at[1:].set(0.5), stirred_rest, previous.at[1:].set(9.0))
    np.testing.assert_allclose(together[0], others[0], rtol=1e-5, atol=1e-6)


@each
def test_time_label_text_and_previous_estimate_all_count(name, shape):
    _, apply = trained(name, shape)
    x, t, told, previous = inputs(shape)
    y = apply(x, t, told, previous)
    for other in (
        apply(x, 1.0 - t, told, previous),
        apply(x, t, told._replace(label=(told.label + 1) % CLASSES), previous),
        apply(x, t, told._replace(text=(told.text + 1) % NUM_WORDS), previous),
        apply(x, t, told, previous + 1.0),
    ):
        assert np.abs(other - y)[1:].max() > 1e-3


@each_light
def test_without_label_or_text_it_takes_the_last_row_of_the_table(name, shape):
    params, apply = trained(name, shape)
    x, t, (label, text), previous = inputs(shape)
    ask = lambda label, text=text: apply(x, t, Condition(label, text), previous)  # noqa: E731
    tables = params["Conditioning_0"]["label"]["embedding"], params["Conditioning_0"]["words"]["table"]["embedding"]
    assert [len(table) for table in tables] == [CLASSES + 1, NUM_WORDS + 1]
    unlabelled, textless = ask(None), ask(label, np.full((4, 3), -1))
    # Two programs, with a label and without: the compiler may order their sums differently.
    np.testing.assert_allclose(unlabelled, ask(np.full(4, CLASSES)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(unlabelled, ask(np.full(4, -1)), rtol=1e-5, atol=1e-5)  # data sets without labels
    np.testing.assert_allclose(textless, ask(label, np.full((4, 3), NUM_WORDS)), rtol=1e-5, atol=1e-5)
    for value in range(CLASSES):
        assert np.abs(unlabelled - ask(np.full(4, value))).max() > 1e-4
    for word in range(NUM_WORDS):
        assert np.abs(textless - ask(label, np.full((4, 3), word))).max() > 1e-4
    assert np.isnan(ask(label + CLASSES + 1)).all() and np.isnan(ask(label, text + NUM_WORDS + 2)).all()


@each_light
def test_an_unconditional_one_ignores_labels_and_text_and_has_no_weights_for_them(name, shape):
    params, apply = trained(name, shape, num_classes=0, num_words=0)
    x, t, told, previous = inputs(shape)
    assert set(params["Conditioning_0"]) == {"time_1", "time_2"}
    np.testing.assert_array_equal(apply(x, t, told, previous), apply(x, t, UNTOLD, previous))
    labelled = jax.eval_shape(build(name, shape, num_words=0).init, jax.random.key(0), x, t)["params"]
    assert set(labelled["Conditioning_0"]) == {"time_1", "time_2", "label"}


@each_light
def test_self_conditioning_is_zeros_at_first_and_ignored_where_off(name, shape):
    x, t, told, previous = inputs(shape)
    _, apply = trained(name, shape)
    # Two programs: the compiler may order their sums differently.
    np.testing.assert_allclose(apply(x, t, told, None), apply(x, t, told, np.zeros_like(x)), rtol=1e-5, atol=1e-5)
    assert np.abs(apply(x, t, told, None) - apply(x, t, told, previous)).max() > 1e-3
    _, apply = trained(name, shape, self_conditioning=False)
    np.testing.assert_array_equal(apply(x, t, told, None), apply(x, t, told, previous))


def test_several_outputs_of_a_vector_follow_one_another():
    """The first d numbers are the first output, so that a caller can split the last axis."""
    params, apply = trained("dit", (6,), outputs=2)
    given = inputs((6,))
    y = apply(*given)
    # Silence the second output of every number in the last layer: only the second half may become its bias.
    kernel, bias = np.array(params["output"]["kernel"]), np.asarray(params["output"]["bias"])
    kernel[:, 1::2] = 0.0
    silenced = apply(*given, params=params | {"output": {"kernel": kernel, "bias": bias}})
    np.testing.assert_allclose(silenced[:, :6], y[:, :6], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(silenced[:, 6:], bias[1], rtol=1e-5)


def test_positions_of_a_grid_are_all_different():
    for grid in [(7, 5), (9,)]:
        table = grid_positions(grid, 16)
        assert table.shape == (np.prod(grid), 16)
        distance = np.abs(table[:, None] - table[None]).max(-1) + np.eye(len(table))
        assert distance.min() > 0.1
