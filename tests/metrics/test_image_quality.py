"""Peak signal-to-noise ratio and structural similarity against scikit-image's values and their extremes."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent.metrics import image_quality

REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "image_quality.npz")


@pytest.mark.parametrize("name", ["grey", "colour"])
def test_equals_the_reference(name):
    a, b = jnp.asarray(REFERENCE[f"{name}__a"]), jnp.asarray(REFERENCE[f"{name}__b"])
    found = jax.jit(image_quality.structural_similarity)(a, b)
    np.testing.assert_allclose(found, REFERENCE[f"{name}__ssim"], atol=2e-5)
    found = jax.jit(image_quality.peak_signal_to_noise_ratio)(a, b)
    np.testing.assert_allclose(found, np.minimum(REFERENCE[f"{name}__psnr"], 100.0), rtol=1e-5)


def test_a_constant_shift_has_the_closed_form():
    a = jnp.full((1, 8, 8, 1), 0.4)
    assert float(image_quality.peak_signal_to_noise_ratio(a, a + 0.1)[0]) == pytest.approx(20.0, abs=1e-4)
    expected = (2 * 0.4 * 0.5 + 1e-4) / (0.4**2 + 0.5**2 + 1e-4)  # luminance alone: there is no structure
    assert float(image_quality.structural_similarity(a, a + 0.1)[0]) == pytest.approx(expected, abs=3e-5)


@pytest.mark.parametrize(("size", "window"), [(28, 11), (11, 11), (10, 9), (8, 7), (1, 1)])
def test_the_window_fits_the_image(size, window):
    assert image_quality.window_size(size, 28) == window
    x = jnp.asarray(np.random.default_rng(0).random((2, size, size, 1)), jnp.float32)
    np.testing.assert_allclose(image_quality.structural_similarity(x, x), 1.0, atol=1e-5)
