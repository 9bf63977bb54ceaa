"""The extractor that extracts nothing: the values of x themselves, in order. For data that no LeNet sees, and as what
a distance on features is compared with."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from latent.extractors.contract import Extractor

NAME = "pixels"


def load(shape: tuple[int, ...]) -> Extractor:
    """The extractor of examples of `shape`. It has no weights, no feature maps and knows no classes."""

    def features(x: Float[Array, "B ..."]) -> dict[str, Float[Array, "B _"]]:
        return {"features": jnp.reshape(x, (x.shape[0], -1))}

    return Extractor(NAME, "none", features, lambda x: [], {"shape": list(shape), "num_classes": 0})
