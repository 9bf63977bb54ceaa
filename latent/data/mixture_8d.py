"""mixture_8d: three overlapping, correlated Gaussians in eight dimensions."""

from __future__ import annotations

import numpy as np

from latent.data.mixture import Mixture, source


def _mixture() -> Mixture:
    generator = np.random.default_rng(8)
    factors = generator.normal(size=(3, 8, 8)) / np.sqrt(8)
    covariances = factors @ factors.transpose(0, 2, 1) + 0.1 * np.eye(8)
    return Mixture(np.array([0.5, 0.3, 0.2]), 1.5 * generator.normal(size=(3, 8)), covariances)


MIXTURE = _mixture()
SOURCE = source(MIXTURE, "three correlated Gaussians in eight dimensions, weights 0.5, 0.3, 0.2")
