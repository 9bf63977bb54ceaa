"""What metrics on an extractor's outputs share: its options checked, its outputs on many images. No metric itself."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from latent.errors import unknown_name
from latent.extractors import lenet
from latent.metrics import passport

BATCH = 500


def require(metric: str, options: Any, least: int) -> None:
    """Raises UserError unless `options` names a shipped extractor and asks for at least `least` samples."""
    passport.require_counts(metric, options, num_samples=least)
    if options.extractor not in lenet.names():
        raise unknown_name(f"{metric}.extractor", options.extractor, lenet.names())


def misfit(extractor: lenet.Extractor, x: Float[np.ndarray, "N ..."]) -> str:
    """Why the extractor cannot see these samples; empty where it can."""
    shape = tuple(extractor.card["shape"])
    return "" if x.shape[1:] == shape else f"{extractor.name} sees images of {shape}, these are {x.shape[1:]}"


def outputs(extractor: lenet.Extractor, x: Float[np.ndarray, "N H W C"]) -> dict[str, Float[np.ndarray, "N _"]]:
    """The extractor's "features" and "probabilities" of images in [0, 1]."""

    @jax.jit
    def of_batch(part: Any) -> dict[str, Any]:
        found = extractor.features(part)
        return {"features": found["features"], "probabilities": jax.nn.softmax(found["logits"])}

    parts = [jax.device_get(of_batch(x[start : start + BATCH])) for start in range(0, len(x), BATCH)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def protocol(extractor: lenet.Extractor) -> dict[str, str]:
    """What a passport says of the extractor."""
    return {"extractor": extractor.name, "extractor_sha256": extractor.sha256}
