"""A perceptual distance on the feature maps of a shipped classifier.

The form is that of LPIPS (Zhang et al. 2018, arXiv 1801.03924) without its learned channel weights: features of unit
length at every place, squared differences, averaged over places, summed over layers. It is not LPIPS, whose features
are an ImageNet network's, and is named for its extractor.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from latent.errors import UserError
from latent.extractors import lenet
from latent.types import DataSpec

Distance = Callable[[Float[Array, "B H W C"], Float[Array, "B H W C"]], Float[Array, "B"]]


def _unit(features: Float[Array, "B h w c"]) -> Float[Array, "B h w c"]:
    # The root of a sum that may be zero has no finite gradient.
    return features / jnp.sqrt(jnp.sum(features**2, axis=-1, keepdims=True) + 1e-8)


def make(name: str, spec: DataSpec) -> Distance:
    """The distance on the extractor `model.perceptual` names; images in [0, 1] of the shape it was trained on."""
    extractor = lenet.load(name)
    shape = tuple(extractor.card["shape"])
    if spec.shape != shape or spec.support == "real":
        raise UserError(
            f"model.perceptual={name!r} needs images of shape {shape} in [0, 1]; {spec.name} has {spec.shape}."
        )

    def distance(x: Float[Array, "B H W C"], y: Float[Array, "B H W C"]) -> Float[Array, "B"]:
        total = jnp.zeros(x.shape[0])
        for of_x, of_y in zip(extractor.maps(x), extractor.maps(y), strict=True):
            difference = jnp.sum((_unit(of_x) - _unit(of_y)) ** 2, axis=-1)
            total += jnp.mean(difference, axis=(1, 2))
        return total

    return distance
