"""Which modes of a known mixture the samples of a generator cover (Srivastava et al. 2017, arXiv 1705.07761)."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from latent.data.mixture import Mixture
from latent.evaluation_data import EvaluationData
from latent.metrics import passport
from latent.types import Model, State

needs = {"sample"}
RADIUS = 4.0
"""Standard deviations within which a sample belongs to its nearest mode."""


def names(options: Any) -> tuple[str, ...]:
    """Names of the results."""
    passport.require_counts("mode_coverage", options, num_samples=1)
    return ("modes", "on_mode")


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Number of modes with a sample within 4 of their standard deviations, and the share of samples that are so near.

    Standard errors by the bootstrap over samples and by the binomial. Defined for mixtures with spherical modes.
    """
    name = data.protocol["data"]
    mixture = getattr(importlib.import_module(f"latent.data.{name}"), "MIXTURE", None)
    if mixture is None or not _spherical(mixture):
        return [passport.undefined(result, f"{name} is no mixture of spherical modes") for result in names(options)]
    scale = np.sqrt(mixture.covariances[:, 0, 0])
    x = data.samples(state, options.num_samples).astype(np.float64)
    distance = np.linalg.norm(x[:, None] - mixture.means, axis=2)
    nearest = distance.argmin(axis=1)
    near = distance[np.arange(len(x)), nearest] < RADIUS * scale[nearest]
    covered = lambda rows: len(np.unique(nearest[rows][near[rows]]))  # noqa: E731
    generator = np.random.default_rng(0)
    resampled = [covered(generator.integers(0, len(x), len(x))) for _ in range(200)]
    protocol = data.protocol | {"N": len(x), "radius": RADIUS}
    share = float(near.mean())
    return [
        passport.Result("modes", float(covered(np.arange(len(x)))), float(np.std(resampled)), "modes", protocol),
        passport.Result("on_mode", share, float(np.sqrt(share * (1 - share) / len(x))), "share", protocol),
    ]


def _spherical(mixture: Mixture) -> bool:
    dimensions = mixture.means.shape[1]
    return np.allclose(mixture.covariances, mixture.covariances[:, :1, :1] * np.eye(dimensions))
