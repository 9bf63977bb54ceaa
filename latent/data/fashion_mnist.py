"""fashion_mnist: 70,000 pictures of clothes of 28x28 pixels (Xiao et al. 2017, arXiv 1708.07747)."""

from __future__ import annotations

import numpy as np

from latent.data import idx
from latent.data.dataset import Source

SERVER = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"

SOURCE = Source(
    version="1.0.0",
    shape=(28, 28, 1),
    dtype=np.uint8,
    num_classes=10,
    card={
        "title": "Fashion-MNIST",
        "source": "four idx files; Debian's package dataset-fashion-mnist carries them",
        "licence": "MIT",
        "attribution": "H. Xiao, K. Rasul and R. Vollgraf, Zalando SE",
        "splits": "the official test set; validation is one training image in twelve, by SHA-256 of the image",
    },
    read=idx.read,
    urls=tuple(f"{SERVER}{stem}-{'idx3' if stem.endswith('images') else 'idx1'}-ubyte.gz" for stem in idx.FILES),
)
