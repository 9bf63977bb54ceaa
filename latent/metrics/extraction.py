"""What metrics on an extractor's outputs share: its options checked, its outputs on many images. No metric itself."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.special
from jax.sharding import NamedSharding
from jaxtyping import Float

from latent.errors import unknown_name
from latent.evaluation_data import EvaluationData
from latent.extractors import catalogue, lenet, pixels
from latent.extractors.contract import Extractor
from latent.metrics import passport, reference
from latent.types import Batch, Context, Extra, Model, Params, State

STREAMED = 4000
"""Images of a split held at a time."""


class Compared(NamedTuple):
    """Features of a split and of samples, by the same extractor, and the passport of what is said of the two."""

    real: Float[np.ndarray, "N d"]
    fake: Float[np.ndarray, "M d"]
    protocol: dict[str, Any]


def require(metric: str, options: Any, least: int, classes: bool = False) -> None:
    """Raises UserError unless `options` asks for at least `least` samples of an extractor that there is."""
    passport.require_counts(metric, options, num_samples=least)
    require_extractor(metric, options, classes)


def title(kind: str, published: str, extractor: str) -> str:
    """A result's name: the literature's on the published weights of Inception, else `kind` with its extractor's."""
    return published if catalogue.has_published_scores(extractor) else f"{kind}_{extractor}"


def require_extractor(metric: str, options: Any, classes: bool = False) -> None:
    """Raises UserError unless `options` names an extractor: one of the LeNets where `classes` of a data set are asked
    of it."""
    if not classes:
        catalogue.require(f"{metric}.extractor", options.extractor)
    elif options.extractor not in lenet.names():
        raise unknown_name(f"{metric}.extractor", options.extractor, lenet.names())


def misfit(extractor: Extractor, x: Float[np.ndarray, "N ..."]) -> str:
    """Why the extractor cannot see these samples; empty where it can."""
    shape, given = extractor.card["shape"], x.shape[1:]
    if shape is None:
        fits = len(given) == 3 and given[-1] in (1, 3)
        return "" if fits else f"{extractor.name} sees grey and RGB images, these are {given}"
    return "" if given == tuple(shape) else f"{extractor.name} sees images of {tuple(shape)}, these are {given}"


def outputs(
    extractor: Extractor, x: Float[np.ndarray, "N ..."], batch: int = 0, sharding: NamedSharding | None = None
) -> dict[str, Float[np.ndarray, "N _"]]:
    """The extractor's "features" of images in [0, 1], and their "probabilities" where it knows classes.

    `batch` images at a time (0: as many as the extractor wants), spread over the devices of `sharding`. Raises
    Undefined where a value or a feature is not finite: pooling can hide a NaN, and no distance means anything.
    """
    require_finite(x, f"images for extractor={extractor.name}")
    batch = min(batch or extractor.batch, len(x))
    batch += 0 if sharding is None else -batch % sharding.num_devices
    parts = []
    for start in range(0, len(x), batch):
        part = x[start : start + batch]
        # One shape, hence one compilation: what the last batch lacks is its first image again.
        padded = np.concatenate([part, np.broadcast_to(part[:1], (batch - len(part), *part.shape[1:]))])
        found = jax.device_get(extractor.features(jax.device_put(padded, sharding)))
        parts.append({name: values[: len(part)] for name, values in found.items()})
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    require_finite(joined["features"], f"features of extractor={extractor.name}")
    if "logits" in joined:
        joined["probabilities"] = scipy.special.softmax(joined.pop("logits"), axis=1)
    return joined


def require_finite(values: Float[np.ndarray, "N ..."], what: str) -> None:
    """Raises Undefined, which counts the rows with values that are not finite."""
    broken = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if broken.any():
        rows = f"{broken.sum()} of {len(values)} examples, the first is number {broken.argmax()}"
        raise passport.Undefined(f"{what} are not finite for {rows}: the model, or the data it was given, is broken.")


def protocol(extractor: Extractor) -> dict[str, str]:
    """What a passport says of the extractor."""
    told = {"extractor": extractor.name, "extractor_sha256": extractor.sha256}
    return told | ({"extractor_input": extractor.card["input"]} if extractor.card.get("input") else {})


def of_split(extractor: Extractor, state: State, data: EvaluationData) -> Float[np.ndarray, "N d"] | str:
    """Features of every example of a split, or why there are none; the images are never held all at once.

    They are kept in memory with the data and, where that has a directory, on disk (reference.py).
    """
    if reason := misfit(extractor, data.map(x_of_batch, state, limit=1)):
        return reason

    def compute() -> Float[np.ndarray, "N d"]:
        count, parts = len(data.split.x), []
        for start in range(0, count, STREAMED):
            rows = np.arange(start, min(start + STREAMED, count))
            x = data.map(x_of_batch, state, rows=rows)
            parts.append(outputs(extractor, x, sharding=data.sharding)["features"])
        return np.concatenate(parts)

    def kept() -> Float[np.ndarray, "N d"]:
        identity = reference.identity(extractor, data) if extractor.name != pixels.NAME else None
        if data.directory is None or identity is None:
            return compute()
        return reference.kept(data.directory / reference.FOLDER, identity, compute)

    return data.once(("features", extractor.name, extractor.sha256, reference.seed_of(data)), kept)


def x_of_batch(model: Model, params: Params, extra: Extra, batch: Batch, context: Context) -> Any:
    """x as the model sees it."""
    return batch["x"]


def compare(options: Any, state: State, data: EvaluationData, fake: Float[np.ndarray, "M ..."]) -> Compared | str:
    """Features of the split and of `fake` by `options.extractor`, or why there are none."""
    extractor = catalogue.load(options.extractor, fake.shape[1:])
    if reason := misfit(extractor, fake):
        return reason
    real = of_split(extractor, state, data)
    if isinstance(real, str):
        return real
    found = outputs(extractor, fake, sharding=data.sharding)["features"]
    return Compared(real, found, data.protocol | {"N": len(fake), "N_data": len(real)} | protocol(extractor))


def of_samples(options: Any, state: State, data: EvaluationData) -> Compared | str:
    """The same for `options.num_samples` samples of the model."""
    return compare(options, state, data, data.samples(state, options.num_samples))
