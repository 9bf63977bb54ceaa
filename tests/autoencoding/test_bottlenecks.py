"""Quantisers against their definitions: codes, straight-through gradients, moving averages, restarts."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent import rng
from latent.autoencoding.bottlenecks import fsq, vq
from latent.config import Section
from latent.errors import UserError
from latent.types import Context
from tests import harness

OPTIONS = {"size": 6, "groups": 1, "update": "ema", "decay": 0.9, "restart_below": 0.0}


def context(count, seed=0):
    same = lambda tree: tree  # noqa: E731
    return Context(rng.evaluation_stream(seed, np.arange(count)), jnp.int32(0), {}, True, same, same)


def quantiser(latent_shape=(2,), **changes):
    made = vq.bottleneck(Section({"codebook": {**OPTIONS, **changes}}), latent_shape)
    return made, *jax.jit(made.init)(harness.key(0))


def test_vq_takes_the_nearest_vector():
    made, params, extra = quantiser((4, 2), size=6)
    raw = jax.random.normal(jax.random.key(1), (5, 4, 2))
    code = jax.jit(lambda: made.encode(params, extra, {"code": raw}, None, 1))()
    vectors = extra["codebook"]["vectors"]
    distance = np.linalg.norm(np.asarray(raw)[:, :, None] - np.asarray(vectors), axis=-1)
    np.testing.assert_array_equal(code.info["indices"], distance.argmin(axis=-1))
    np.testing.assert_allclose(code.mean, vectors[distance.argmin(axis=-1)], atol=1e-6)
    np.testing.assert_allclose(code.losses["commitment"], (distance.min(axis=-1) ** 2).sum(axis=1), rtol=1e-4)
    np.testing.assert_allclose(made.snap(params, extra, raw), code.mean, atol=1e-6)
    np.testing.assert_allclose(made.snap(params, extra, code.mean), code.mean, atol=1e-6)


def test_vq_groups_share_one_codebook():
    made, params, extra = quantiser((6,), groups=3)
    raw = jax.random.normal(jax.random.key(1), (5, 6))
    code = jax.jit(lambda: made.encode(params, extra, {"code": raw}, None, 1))()
    assert code.info["indices"].shape == (5, 3)
    single = vq.nearest(raw[:, 2:4], extra["codebook"]["vectors"])
    np.testing.assert_array_equal(code.info["indices"][:, 1], single)


def test_vq_gradients_pass_straight_through():
    """d z / d encoder output is the identity; the codebook learns from its own term only (van den Oord 2017, eq. 3)."""
    made, params, extra = quantiser((2,), update="gradient")
    raw = jax.random.normal(jax.random.key(1), (5, 2))

    def loss(raw, params, weight):
        code = made.encode(params, extra, {"code": raw}, None, 1)
        return jnp.sum(3.0 * code.samples) + weight * jnp.sum(code.losses["codebook"])

    to_raw, to_book = jax.jit(jax.grad(loss, argnums=(0, 1)))(raw, params, 0.0)
    np.testing.assert_allclose(to_raw, 3.0)
    np.testing.assert_allclose(to_book["codebook"], 0.0)
    _, to_book = jax.jit(jax.grad(loss, argnums=(0, 1)))(raw, params, 1.0)
    indices = vq.nearest(raw, params["codebook"])
    expected = np.zeros((6, 2))
    np.add.at(expected, np.asarray(indices), 2 * (np.asarray(params["codebook"])[indices] - np.asarray(raw)))
    np.testing.assert_allclose(to_book["codebook"], expected, atol=1e-5)


def test_vq_moving_averages_reach_the_means_of_their_cells():
    """On a fixed batch whose cells do not change, every used vector converges to its cell's mean: k-means."""
    made, params, extra = quantiser((2,), size=3, decay=0.5)
    centres = np.array([[5.0, 0.0], [0.0, 5.0], [-5.0, -5.0]])
    raw = jnp.float32(np.repeat(centres, 10, axis=0) + 0.3 * np.random.default_rng(0).normal(size=(30, 2)))
    extra["codebook"]["vectors"] = jnp.float32(centres + 0.5)
    extra["codebook"]["sum"] = extra["codebook"]["vectors"] / 3

    @jax.jit
    def advance(extra):
        code = made.encode(params, extra, {"code": raw}, None, 1)
        return made.learn(extra, code, context(30))

    for _ in range(40):
        extra, terms = advance(extra)
    means = np.asarray(raw).reshape(3, 10, 2).mean(axis=1)
    np.testing.assert_allclose(extra["codebook"]["vectors"], means, atol=1e-4)
    np.testing.assert_allclose(terms["perplexity"], 3.0, rtol=1e-5)


def test_vq_restarts_dead_codes_at_outputs_of_the_batch():
    made, params, extra = quantiser((2,), size=4, restart_below=0.1)
    raw = jax.random.normal(jax.random.key(3), (32, 2))
    code = jax.jit(lambda: made.encode(params, extra, {"code": raw}, None, 1))()
    start, _ = jax.jit(lambda: made.learn(extra, code, context(32)))()
    distance = np.linalg.norm(np.asarray(start["codebook"]["vectors"])[:, None] - np.asarray(raw), axis=-1)
    born = distance.min(axis=1) < 1e-6
    assert born.sum() >= 1  # unused from the start
    dead = start["codebook"] | {
        "vectors": start["codebook"]["vectors"].at[2].set(100.0),
        "share": start["codebook"]["share"].at[2].set(0.0),
    }
    dead["sum"] = dead["vectors"] * dead["share"][:, None]
    state = {"codebook": dead}
    code = jax.jit(lambda: made.encode(params, state, {"code": raw}, None, 1))()
    after, _ = jax.jit(lambda: made.learn(state, code, context(32)))()
    vectors = np.asarray(after["codebook"]["vectors"])
    assert np.linalg.norm(vectors[2] - np.asarray(raw), axis=1).min() < 1e-6
    assert float(after["codebook"]["share"][2]) == pytest.approx(0.25)


@pytest.mark.parametrize(("indices", "expected"), [(np.zeros((6, 2)), 1.0), (np.arange(12).reshape(6, 2) % 4, 4.0)])
def test_perplexity_counts_the_codes_in_even_use(indices, expected):
    found = vq.perplexity(jnp.asarray(indices, jnp.int32), 9, context(6))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("levels", [(2,), (3,), (8, 5), (4, 3, 2)])
def test_fsq_reaches_every_code_once(levels):
    radix = np.array(levels)
    z = jnp.float32(np.random.default_rng(0).uniform(-6, 6, size=(20_000, len(levels))))
    codes = jax.jit(lambda: fsq.quantise(z, radix))()
    numbers = np.asarray(fsq.indices(codes, radix))
    assert set(numbers) == set(range(np.prod(levels)))
    for column, level in zip(np.asarray(codes).T, levels, strict=True):
        grid = (np.arange(level) - level // 2) / (level // 2)
        np.testing.assert_allclose(np.unique(np.round(column, 5)), grid, atol=1e-4)
    rows = np.unique(np.column_stack([numbers, np.round(np.asarray(codes), 4)]), axis=0)
    assert len(rows) == np.prod(levels)


def test_fsq_gradient_is_that_of_the_bound():
    radix = np.array([8, 5])
    z = jnp.array([[0.3, -0.7]])
    found = jax.grad(lambda z: jnp.sum(fsq.quantise(z, radix)))(z)
    exact = jax.grad(lambda z: jnp.sum(fsq.bound(z, radix) / (radix // 2)))(z)
    np.testing.assert_allclose(found, exact, rtol=1e-6)


def test_fsq_snaps_to_its_grid():
    made = fsq.bottleneck(Section({"levels": (4, 3)}), (4,))
    grid = itertools.product(*((np.arange(n) - n // 2) / (n // 2) for n in (4, 3, 4, 3)))
    codes = jnp.float32(list(grid))
    np.testing.assert_allclose(made.snap({}, {}, codes), codes, atol=1e-6)
    near = jnp.clip(codes + 0.2, -5, 5)
    np.testing.assert_allclose(made.snap({}, {}, near), codes, atol=1e-6)


@pytest.mark.parametrize("changes", [{"size": 1}, {"groups": 4}, {"update": "sgd"}, {"decay": 1.0}], ids=str)
def test_bad_options_name_their_key(changes):
    with pytest.raises(UserError, match=rf"model\.codebook\.{next(iter(changes))}"):
        quantiser((2,), **changes)


def test_levels_that_do_not_fill_the_latent_name_their_key():
    with pytest.raises(UserError, match=r"model\.levels"):
        fsq.bottleneck(Section({"levels": (4, 3)}), (3,))
