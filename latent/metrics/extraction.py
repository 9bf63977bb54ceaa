"""What metrics on an extractor's outputs share: its options checked, its outputs on many images. No metric itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from latent.errors import unknown_name
from latent.evaluate import EvaluationData
from latent.extractors import lenet, pixels
from latent.metrics import passport
from latent.types import Batch, Context, Extra, Model, Params, State

BATCH = 500


class Compared(NamedTuple):
    """Features of a split and of samples, by the same extractor, and the passport of what is said of the two."""

    real: Float[np.ndarray, "N d"]
    fake: Float[np.ndarray, "M d"]
    protocol: dict[str, Any]


def require(metric: str, options: Any, least: int, classes: bool = False) -> None:
    """Raises UserError unless `options` asks for at least `least` samples of an extractor that there is."""
    passport.require_counts(metric, options, num_samples=least)
    require_extractor(metric, options, classes)


def require_extractor(metric: str, options: Any, classes: bool = False) -> None:
    """Raises UserError unless `options` names an extractor: a shipped one, or, where no `classes` are asked of it,
    "pixels"."""
    known = lenet.names() if classes else [pixels.NAME, *lenet.names()]
    if options.extractor not in known:
        raise unknown_name(f"{metric}.extractor", options.extractor, known)


def load(name: str, shape: Sequence[int]) -> lenet.Extractor:
    """The extractor of that name, for examples of `shape` where it is "pixels"."""
    return pixels.load(tuple(shape)) if name == pixels.NAME else lenet.load(name)


def misfit(extractor: lenet.Extractor, x: Float[np.ndarray, "N ..."]) -> str:
    """Why the extractor cannot see these samples; empty where it can."""
    shape = tuple(extractor.card["shape"])
    return "" if x.shape[1:] == shape else f"{extractor.name} sees images of {shape}, these are {x.shape[1:]}"


def outputs(
    extractor: lenet.Extractor, x: Float[np.ndarray, "N ..."], batch: int = BATCH
) -> dict[str, Float[np.ndarray, "N _"]]:
    """The extractor's "features" of images in [0, 1], and their "probabilities" where it knows classes.

    Raises Undefined where a value or a feature is not finite: pooling can hide a NaN, and no distance means anything.
    """
    require_finite(x, f"images for extractor={extractor.name}")

    @jax.jit
    def of_batch(part: Any) -> dict[str, Any]:
        found = extractor.features(part)
        known = {"probabilities": jax.nn.softmax(found["logits"])} if "logits" in found else {}
        return {"features": found["features"], **known}

    parts = [jax.device_get(of_batch(x[start : start + batch])) for start in range(0, len(x), batch)]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    require_finite(joined["features"], f"features of extractor={extractor.name}")
    return joined


def require_finite(values: Float[np.ndarray, "N ..."], what: str) -> None:
    """Raises Undefined, which counts the rows with values that are not finite."""
    broken = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if broken.any():
        rows = f"{broken.sum()} of {len(values)} examples, the first is number {broken.argmax()}"
        raise passport.Undefined(f"{what} are not finite for {rows}: the model, or the data it was given, is broken.")


def protocol(extractor: lenet.Extractor) -> dict[str, str]:
    """What a passport says of the extractor."""
    return {"extractor": extractor.name, "extractor_sha256": extractor.sha256}


def examples(state: State, data: EvaluationData) -> Float[np.ndarray, "N ..."]:
    """Every x of the split as the model sees it."""
    return data.once("x", lambda: data.map(x_of_batch, state))


def x_of_batch(model: Model, params: Params, extra: Extra, batch: Batch, context: Context) -> Any:
    """x as the model sees it."""
    return batch["x"]


def compare(options: Any, state: State, data: EvaluationData, fake: Float[np.ndarray, "M ..."]) -> Compared | str:
    """Features of the split and of `fake` by `options.extractor`, or why there are none."""
    extractor = load(options.extractor, fake.shape[1:])
    real = examples(state, data)
    for x in (fake, real):
        if reason := misfit(extractor, x):
            return reason
    of_split = data.once(("features", extractor.sha256), lambda: outputs(extractor, real)["features"])
    counts = {"N": len(fake), "N_data": len(real)}
    described = data.protocol | counts | protocol(extractor)
    return Compared(of_split, outputs(extractor, fake)["features"], described)


def of_samples(options: Any, state: State, data: EvaluationData) -> Compared | str:
    """The same for `options.num_samples` samples of the model."""
    return compare(options, state, data, data.samples(state, options.num_samples))
