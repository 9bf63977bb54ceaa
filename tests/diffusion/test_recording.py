"""A recorded sampler gives the same sample, and the way to it. New samplers are picked up by themselves."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from latent import config, rng
from latent.diffusion import sampling, schedules
from latent.diffusion.grids import GRIDS
from latent.diffusion.predictions import Denoised

PACKAGE = "latent.diffusion.samplers"
PATH = schedules.SCHEDULES["cosine"]()


def denoise(inputs, x, t):
    """Its guess of the data tells which x it was shown, whenever that was."""
    x0 = 0.5 * x + 1.0
    return Denoised(x0, (x - PATH.alpha(t) * x0) / PATH.sigma(t))


@pytest.mark.parametrize(
    ("name", "scan"),
    [  # in the quick suite each as a loop, one as single steps
        pytest.param(name, scan, marks=() if scan == (name != "heun") else pytest.mark.slow)
        for name in config.names(PACKAGE)
        for scan in (True, False)
    ],
)
def test_recording_changes_nothing_and_keeps_the_way(name, scan):
    sampler = config.select(PACKAGE, name, "sampler", "sampler")(PATH, GRIDS["trailing"](PATH, 5))
    keys = rng.sample_keys(0, np.arange(3))
    start = jax.random.normal(jax.random.key(1), (3, 2))
    plain = sampling.runner(sampler, denoise, scan)(None, start, keys)
    told = sampling.runner(sampling.recording(sampler), denoise, scan)(None, start, keys)
    np.testing.assert_allclose(told.sample, plain, atol=1e-5)
    assert told.seen.shape == told.x0.shape == (5, 3, 2)
    np.testing.assert_array_equal(told.seen[0], start)
    np.testing.assert_allclose(told.x0, 0.5 * told.seen + 1.0, atol=1e-5)
    steps = np.abs(np.diff(told.seen, axis=0)).reshape(4, -1).max(axis=1)
    assert np.all(steps > 1e-3)
