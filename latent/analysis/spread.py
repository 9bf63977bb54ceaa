"""How codes use their dimensions: what each one carries, and where the aggregate posterior lies."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

ACTIVE = 0.01
"""Variance of the posterior mean above which a dimension counts as active (Burda et al. 2016, section 5)."""


class Spread(NamedTuple):
    """Statistics of d dimensions over N codes.

    `variance_of_means` Var_x E[z | x]; `centre` and `scale` mean and standard deviation of draws of q(z | x) over the
    set, which a normal prior wants at 0 and 1; `correlation` of the means, 0 for a dimension that does not move; `kl`
    the mean KL by dimension, nats, where the family knows it.
    """

    variance_of_means: Float[np.ndarray, "d"]
    centre: Float[np.ndarray, "d"]
    scale: Float[np.ndarray, "d"]
    correlation: Float[np.ndarray, "d d"]
    kl: Float[np.ndarray, "d"] | None

    @property
    def active(self) -> Bool[np.ndarray, "d"]:
        """Which dimensions move with x."""
        return self.variance_of_means > ACTIVE

    @property
    def order(self) -> np.ndarray:
        """Dimensions, what carries most first: by KL where it is known, else by variance."""
        return np.argsort(-(self.variance_of_means if self.kl is None else self.kl), kind="stable")


def measure(
    means: Float[np.ndarray, "N d"], samples: Float[np.ndarray, "N d"], kl: Float[np.ndarray, "N d"] | None = None
) -> Spread:
    """The statistics of flattened codes."""
    means, samples = np.asarray(means, np.float64), np.asarray(samples, np.float64)
    centred = means - means.mean(axis=0)
    variance = centred.var(axis=0, ddof=1)
    moving = np.sqrt(np.outer(variance, variance))
    covariance = centred.T @ centred / (len(means) - 1)
    correlation = np.divide(covariance, moving, out=np.zeros_like(covariance), where=moving > 1e-12)
    by_dimension = None if kl is None else np.asarray(kl, np.float64).mean(axis=0)
    return Spread(variance, samples.mean(axis=0), samples.std(axis=0), correlation, by_dimension)
