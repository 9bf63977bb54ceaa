"""Active units: latent dimensions whose posterior mean moves with x (Burda et al. 2016, section 5)."""

from __future__ import annotations

from typing import Any

import numpy as np

from latent.errors import UserError
from latent.evaluation_data import EvaluationData
from latent.metrics import passport
from latent.metrics.codes import posterior_mean
from latent.types import Model, State

needs = {"encode"}


def names(options: Any) -> tuple[str, ...]:
    """Names of the results."""
    if not isinstance(options.threshold, int | float) or options.threshold <= 0:
        raise UserError(f"active_units.threshold={options.threshold!r} must be a positive number.")
    return ("active_units",)


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Number of dimensions j with Var_x(E[z_j | x]) > `options.threshold` (0.01 in the paper), over the split.

    The standard error is the bootstrap's, over 200 resamplings of the examples.
    """
    means = data.map(posterior_mean, state).astype(np.float64)
    threshold = options.threshold
    count = int(np.sum(np.var(means, axis=0, ddof=1) > threshold))
    generator = np.random.default_rng(0)
    resampled = []
    for _ in range(200):
        # Variances under multinomial weights: the same as resampling rows, without copying them.
        weights = generator.multinomial(len(means), np.full(len(means), 1 / len(means))) / len(means)
        centre = weights @ means
        resampled.append(np.sum(weights @ means**2 - centre**2 > threshold))
    protocol = data.protocol | {"threshold": threshold, "N": len(means)}
    return [passport.Result("active_units", float(count), float(np.std(resampled)), "dimensions", protocol)]
