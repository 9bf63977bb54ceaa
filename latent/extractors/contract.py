"""What a feature extractor is: a named, frozen function of images, with the hash of its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Float


class Extractor(NamedTuple):
    """A named, frozen feature extractor.

    features(x [B, H, W, C] in [0, 1]) -> {"features": [B, d], "logits": [B, classes]}, the logits where it knows
    classes; it compiles itself. maps(x) -> the feature maps [B, h, w, c] in order. `sha256` is of the weights. `card`
    holds at least "shape", that of the images it sees (None: images of any size, grey or RGB), "num_classes" (0: none)
    and, where it changes images before it looks at them, "input". `batch` is how many images fit a pass.
    """

    name: str
    sha256: str
    features: Callable[[Float[Array, "B ..."]], dict[str, Float[Array, "B _"]]]
    maps: Callable[[Float[Array, "B ..."]], list[Float[Array, "B h w c"]]]
    card: dict[str, Any]
    batch: int = 500
