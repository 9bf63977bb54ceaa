"""Gaussian mixtures with known density and score: data for tests whose answer is exact.

`mixture_2d` and `mixture_8d` are data sets over this file; the functions here are pure and take any mixture.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from latent.data.arrays import Split
from latent.data.dataset import Source


class Mixture(NamedTuple):
    """Component weights, means and covariances."""

    weights: Shaped[np.ndarray, "K"]
    means: Shaped[np.ndarray, "K d"]
    covariances: Shaped[np.ndarray, "K d d"]


def log_density(mixture: Mixture, x: Float[Array, "N d"]) -> Float[Array, "N"]:
    """log p(x), nats, exactly."""
    return jax.nn.logsumexp(component_log_densities(mixture, x), axis=1)


def component_log_densities(mixture: Mixture, x: Float[Array, "N d"]) -> Float[Array, "N K"]:
    """log w_k + log N(x; m_k, C_k): normalised over k they are the responsibilities."""
    difference = x[:, None] - mixture.means
    precision = jnp.asarray(np.linalg.inv(mixture.covariances), x.dtype)
    distance = jnp.einsum("nki,kij,nkj->nk", difference, precision, difference)
    constant = np.log(mixture.weights) - 0.5 * np.linalg.slogdet(2 * np.pi * mixture.covariances)[1]
    return jnp.asarray(constant, x.dtype) - 0.5 * distance


def score(mixture: Mixture, x: Float[Array, "N d"]) -> Float[Array, "N d"]:
    """Gradient of log p with respect to x, in closed form: the responsibilities' mean of C_k^-1 (m_k - x)."""
    responsibility = jax.nn.softmax(component_log_densities(mixture, x), axis=1)
    precision = jnp.asarray(np.linalg.inv(mixture.covariances), x.dtype)
    return jnp.einsum("nk,kij,nkj->ni", responsibility, precision, mixture.means - x[:, None])


def draw(mixture: Mixture, size: int, seed: int) -> Split:
    """`size` points with the component of each as its label."""
    generator = np.random.default_rng(seed)
    label = generator.choice(len(mixture.weights), size, p=mixture.weights)
    factors = np.linalg.cholesky(mixture.covariances)[label]
    noise = generator.normal(size=(size, mixture.means.shape[1]))
    x = mixture.means[label] + np.einsum("nij,nj->ni", factors, noise)
    return Split(x.astype(np.float32), label.astype(np.int32))


def source(mixture: Mixture, title: str) -> Source:
    """The data set of a mixture: independent draws for each split."""
    sizes = {"train": 50_000, "validation": 5_000, "test": 10_000}

    def read(directory: Path | None) -> dict[str, Split]:
        return {split: draw(mixture, size, seed) for seed, (split, size) in enumerate(sizes.items())}

    return Source(
        version="1.0.0",
        shape=(mixture.means.shape[1],),
        dtype=np.float32,
        num_classes=len(mixture.weights),
        card={
            "title": title,
            "source": "drawn by latent/data/mixture.py",
            "licence": "none needed",
            "attribution": "none needed",
            "splits": "independent draws; the label is the component",
        },
        read=read,
        generated=True,
    )
