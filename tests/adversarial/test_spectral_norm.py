"""Spectral normalisation against the reference's power iteration and against exact singular values."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent.adversarial import spectral_norm

REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "gan_losses.npz")
normalise = jax.jit(spectral_norm.normalise, static_argnames="rounds")


def tree():
    generator = np.random.default_rng(0)
    kernel = lambda *shape: jnp.float32(generator.normal(size=shape))  # noqa: E731
    return {"conv": {"kernel": kernel(3, 3, 2, 5), "bias": kernel(5)}, "score": {"kernel": kernel(7, 1)}}


def settled(params, vectors):
    """After 200 rounds; asked for at once they would be written out."""
    for _ in range(200):
        found, vectors = normalise(params, vectors)
    return found, vectors


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_the_power_iteration_equals_the_reference(rounds):
    """The reference's matrix is [outputs, inputs], ours the transpose."""
    kernel, start = jnp.float32(REFERENCE["sn_W"].T), jnp.float32(REFERENCE["sn_u0"])
    found, _ = normalise({"kernel": kernel}, {"kernel": start}, rounds=rounds)
    np.testing.assert_allclose(kernel[0, 0] / found["kernel"][0, 0], REFERENCE[f"sn_sigma_after_{rounds}"], rtol=1e-5)
    exact, _ = settled({"kernel": kernel}, {"kernel": start})
    np.testing.assert_allclose(kernel[0, 0] / exact["kernel"][0, 0], REFERENCE["sn_sigma_exact"], rtol=1e-5)


def test_calls_in_turn_converge_to_exact_singular_values():
    params = tree()
    vectors = jax.jit(spectral_norm.init)(jax.random.key(0), params)
    found, vectors = settled(params, vectors)
    for name in ("conv", "score"):
        matrix = np.asarray(found[name]["kernel"]).reshape(-1, found[name]["kernel"].shape[-1])
        assert np.linalg.svd(matrix, compute_uv=False)[0] == pytest.approx(1.0, abs=1e-4)
    np.testing.assert_array_equal(found["conv"]["bias"], params["conv"]["bias"])
    assert jax.tree.map(jnp.shape, vectors) == {"conv": {"kernel": (5,)}, "score": {"kernel": (1,)}}


def test_gradients_see_the_singular_value_and_not_the_iteration():
    """d/dW <G, W / sigma> = (G - <G, W / sigma> u v') / sigma (Miyato et al. 2018, eq. 11, for u, v exact)."""
    matrix = np.random.default_rng(1).normal(size=(6, 4))
    weight = np.random.default_rng(2).normal(size=(6, 4))
    left, values, right = np.linalg.svd(matrix)
    start = {"kernel": jnp.float32(right[0])}
    found = jax.jit(jax.grad(lambda k: jnp.sum(weight * spectral_norm.normalise({"kernel": k}, start)[0]["kernel"])))(
        jnp.float32(matrix)
    )
    along = np.sum(weight * matrix) / values[0]
    np.testing.assert_allclose(found, (weight - along * np.outer(left[:, 0], right[0])) / values[0], atol=1e-4)


def test_a_kernel_that_starts_at_zero_stays_finite_and_recovers():
    """The last layers of residual blocks start at zero: the vector must keep a direction."""
    zero, vectors = {"kernel": jnp.zeros((5, 3))}, {"kernel": jnp.float32([1.0, 0.0, 0.0])}
    found, kept = normalise(zero, vectors)
    gradient = jax.jit(jax.grad(lambda k: jnp.sum(spectral_norm.normalise({"kernel": k}, vectors)[0]["kernel"])))
    assert np.all(found["kernel"] == 0.0) and np.all(np.isfinite(gradient(zero["kernel"])))
    np.testing.assert_array_equal(kept["kernel"], vectors["kernel"])
    matrix = {"kernel": jnp.float32(np.random.default_rng(0).normal(size=(5, 3)))}
    after, _ = settled(matrix, kept)
    assert np.linalg.svd(after["kernel"], compute_uv=False)[0] == pytest.approx(1.0, abs=1e-4)
