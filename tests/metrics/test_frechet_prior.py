"""The ratio of two Frechet distances: its value in closed form, its interval against repeated draws."""

from __future__ import annotations

import numpy as np
import pytest

from latent.config import Section
from latent.extractors import inception
from latent.metrics import frechet_distance, frechet_prior


def features(generator, count, shift, width=3):
    return generator.normal(size=(count, width)) + shift


def test_the_ratio_is_that_of_two_shifted_gaussians():
    """Equal covariances: distances are squared shifts, 3 * 0.5^2 and 3 * 1^2, up to what estimation adds."""
    generator = np.random.default_rng(0)
    real, fake, prior = (features(generator, 20_000, shift) for shift in (0.0, 0.5, 1.0))
    value, error, low, high = frechet_prior.interval(real, fake, prior)
    assert value == pytest.approx(0.25, abs=0.02)
    assert low < value < high and high / value == pytest.approx(value / low, rel=1e-6)
    assert error == pytest.approx(value * np.log(high / value) / 1.96, rel=1e-6)


def test_the_interval_is_as_wide_as_repeated_draws_are_spread():
    generator = np.random.default_rng(1)
    draw = lambda: [features(generator, 500, shift) for shift in (0.0, 0.5, 1.0)]  # noqa: E731
    spread = np.std([frechet_prior.log_ratio(*draw()) for _ in range(300)])
    *_, low, high = frechet_prior.interval(*draw())
    assert np.log(high / low) / (2 * 1.96) == pytest.approx(spread, rel=0.25)


def test_the_distance_has_the_name_of_frechet_distance(monkeypatch):
    monkeypatch.setattr(inception, "require", lambda key: None)  # its weights need not be here
    monkeypatch.setattr(inception, "is_published", lambda: True)
    for extractor, name in (("pixels", "fd_pixels"), (inception.NAME, "fid")):
        options = Section({"extractor": extractor, "num_samples": 10})
        found = frechet_prior.names(options)
        assert found[:2] == (name, f"{name}_prior") and found[:1] == frechet_distance.names(options)
