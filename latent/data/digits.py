"""digits: 1,797 handwritten digits of 8x8 pixels that come with scikit-learn. Needs no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from latent.data.arrays import Split, content_bucket
from latent.data.dataset import Source


def read(directory: Path | None) -> dict[str, Split]:
    """The three splits, by the hash of the image: 70% train, 10% validation, 20% test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = np.rint(bunch.images[..., None] * (255 / 16)).astype(np.uint8)
    label, bucket = bunch.target.astype(np.int32), content_bucket(x, 10)
    chosen = {"train": bucket >= 3, "validation": bucket == 2, "test": bucket <= 1}
    return {split: Split(x[rows], label[rows]) for split, rows in chosen.items()}


SOURCE = Source(
    version="1.0.0",
    shape=(8, 8, 1),
    dtype=np.uint8,
    num_classes=10,
    card={
        "title": "Optical recognition of handwritten digits, the test set of the UCI repository",
        "source": "scikit-learn, sklearn.datasets.load_digits",
        "licence": "CC BY 4.0 (UCI), BSD-3-Clause (scikit-learn)",
        "attribution": "E. Alpaydin and C. Kaynak, 1998",
        "splits": "by SHA-256 of the image, 70/10/20; grey values 0..16 scaled to 0..255",
    },
    read=read,
    generated=True,
)
