"""binarized_mnist: the fixed binary MNIST of Larochelle & Murray 2011, whose numbers form a table of their own.

It cannot be derived from MNIST: its pixels were drawn once. The three .amat files are text, one image a line.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from latent.data.arrays import Split
from latent.data.dataset import Source
from latent.errors import UserError

FILES = {"train": "binarized_mnist_train.amat", "validation": "binarized_mnist_valid.amat"}
FILES["test"] = "binarized_mnist_test.amat"


def read(directory: Path | None) -> dict[str, Split]:
    """The three splits as 0 and 255; they carry no labels."""
    if directory is None:
        raise UserError("--from=DIRECTORY is required: this set is read from three .amat files.")
    splits = {}
    for split, name in FILES.items():
        paths = sorted(directory.rglob(name))
        if not paths:
            raise UserError(f"--from={directory}: there is no {name} in it.")
        try:
            values = np.loadtxt(paths[0], dtype=np.float32, ndmin=2)
        except (OSError, ValueError) as error:
            raise UserError(f"{paths[0]} cannot be read: {error}.") from error
        if values.shape[1] != 784 or not np.isin(values, (0, 1)).all():
            raise UserError(f"{paths[0]} does not hold 784 zeros and ones a line: truncated or something else.")
        x = (255 * values).astype(np.uint8).reshape(-1, 28, 28, 1)
        splits[split] = Split(x, np.full(len(x), -1, np.int32))
    return splits


SOURCE = Source(
    version="1.0.0",
    shape=(28, 28, 1),
    dtype=np.uint8,
    num_classes=0,
    card={
        "title": "Binarised MNIST, fixed",
        "source": "three text files, binarized_mnist_{train,valid,test}.amat",
        "licence": "CC BY-SA 3.0 (MNIST)",
        "attribution": "H. Larochelle and I. Murray, 2011",
        "splits": "the files' own: 50,000 train, 10,000 validation, 10,000 test",
    },
    read=read,
)
