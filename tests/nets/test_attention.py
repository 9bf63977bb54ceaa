"""Attention against its formula in numpy, and its symmetries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent.errors import UserError
from latent.nets.attention import GridAttention, SelfAttention, attention, check_heads
from tests.nets.awake import awake, draw, initialise, stirred


def naive(query, key, value):
    out = np.zeros((*query.shape[:3], value.shape[-1]))
    for b in range(query.shape[0]):
        for h in range(query.shape[1]):
            for i in range(query.shape[2]):
                weights = np.exp(query[b, h, i] @ key[b, h].T / np.sqrt(query.shape[-1]))
                out[b, h, i] = (weights / weights.sum()) @ value[b, h]
    return out


def test_it_is_the_formula():
    query, key, value = draw(2, 3, 4, 5), draw(2, 3, 6, 5, seed=1), draw(2, 3, 6, 5, seed=2)
    expected = naive(*(np.float64(a) for a in (query, key, value)))
    np.testing.assert_allclose(jax.jit(attention)(query, key, value), expected, rtol=1e-5, atol=1e-6)
    library = jax.nn.dot_product_attention(*(jnp.swapaxes(a, 1, 2) for a in (query, key, value)))
    np.testing.assert_allclose(jnp.swapaxes(library, 1, 2), expected, rtol=1e-5, atol=1e-6)


def test_large_logits_do_not_overflow():
    query = 200.0 * draw(1, 1, 4, 8)
    found = attention(query, query, draw(1, 1, 4, 8, seed=1))
    np.testing.assert_allclose(found, draw(1, 1, 4, 8, seed=1), rtol=1e-5)  # each token attends to itself alone


def test_in_half_precision_the_softmax_stays_in_single():
    inputs = [draw(1, 1, 300, 4, seed=i).astype(jnp.bfloat16) for i in range(3)]
    found = attention(*inputs)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(found), naive(*(np.float64(a) for a in inputs)), atol=0.01)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_heads_are_slices_of_the_projections(qk_norm):
    net, x = SelfAttention(2, qk_norm), draw(2, 5, 8)
    params = stirred(net, x)
    projected = np.float64(x @ params["qkv"]["kernel"] + params["qkv"]["bias"])
    query, key, value = np.moveaxis(projected.reshape(2, 5, 3, 2, 4), (2, 3), (0, 2))
    if qk_norm:
        unit = lambda a: a / np.sqrt((a**2).mean(-1, keepdims=True) + 1e-6)  # noqa: E731
        query = unit(query) * np.float64(params["query_norm"]["scale"])
        key = unit(key) * np.float64(params["key_norm"]["scale"])
    mixed = naive(query, key, value).swapaxes(1, 2).reshape(2, 5, 8)
    expected = mixed @ np.float64(params["output"]["kernel"]) + np.float64(params["output"]["bias"])
    np.testing.assert_allclose(net.apply({"params": params}, x), expected, rtol=1e-4, atol=1e-5)


def test_normalised_queries_bound_the_logits():
    """With unit scales a logit is at most sqrt(d), however large the input."""
    net, x = SelfAttention(1, qk_norm=True), 1e4 * draw(1, 6, 4)
    params = initialise(net, x)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(net.apply({"params": params}, x) ** 2) / 1e8))(x)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(params["query_norm"]["scale"], 1.0)
    scaled = [net.apply({"params": params}, factor * x) / factor for factor in (1.0, 100.0)]
    np.testing.assert_allclose(*scaled, rtol=1e-3)  # the weights do not depend on the input's size


def test_permuted_tokens_give_permuted_outputs():
    order = np.random.default_rng(0).permutation(6)
    net, x = SelfAttention(2), draw(2, 6, 8)
    params = stirred(net, x)
    apply = jax.jit(lambda x: net.apply({"params": params}, x))
    np.testing.assert_allclose(apply(x[:, order]), apply(x)[:, order], rtol=1e-5, atol=1e-5)


def test_permuted_pixels_give_permuted_outputs_and_it_starts_as_the_identity():
    order = np.random.default_rng(0).permutation(6)
    net, x = GridAttention(2), draw(2, 2, 3, 8)
    params = initialise(net, x)
    apply = jax.jit(lambda params, x: net.apply({"params": params}, x))
    np.testing.assert_array_equal(apply(params, x), x)
    params = awake(params)
    shuffle = lambda x: x.reshape(2, 6, 8)[:, order].reshape(x.shape)  # noqa: E731
    np.testing.assert_allclose(apply(params, shuffle(x)), shuffle(apply(params, x)), rtol=1e-4, atol=1e-5)


def test_heads_must_divide():
    check_heads(4, (8, 12))
    with pytest.raises(UserError, match=r"model\.net\.heads=4"):
        check_heads(4, (8, 10))
