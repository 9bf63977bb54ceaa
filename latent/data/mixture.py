"""Gaussian mixtures: data whose distribution is known. `mixture_2d` and `mixture_8d` are data sets over this file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from latent.data.arrays import Split
from latent.data.dataset import Source


class Mixture(NamedTuple):
    """Component weights, means and covariances."""

    weights: Shaped[np.ndarray, "K"]
    means: Shaped[np.ndarray, "K d"]
    covariances: Shaped[np.ndarray, "K d d"]


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
