"""Loads and writes the shipped LeNets: one npz each, with the weights, what they were trained by, and their hash.

A distance on these features is named for its extractor and hash; it is not FID, whose features are Inception's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from latent import config
from latent.checkpoint import digest
from latent.errors import UserError, unknown_name
from latent.extractors.contract import Extractor
from latent.models import classifier
from latent.types import DataSpec

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The extractors that ship."""
    return sorted(path.stem for path in FOLDER.glob("*.npz"))


def load(name: str) -> Extractor:
    """Loads a shipped extractor by name; UserError where the name is unknown or the weights are not what they were.

    Its card holds the training command, the data's hash and the test accuracy.
    """
    if name not in names():
        raise unknown_name("extractor", name, names())
    with np.load(FOLDER / f"{name}.npz") as stored:
        card = json.loads(str(stored["card"]))
        params = unflatten_dict({key: stored[key] for key in stored.files if key != "card"}, sep="/")
    found = digest(params)
    if found != card["sha256"]:
        raise UserError(f"extractor={name!r} is damaged: SHA-256 {found[:12]}, expected {card['sha256'][:12]}.")
    shape = tuple(card["shape"])
    spec = DataSpec(card["data"], shape, card["num_classes"], 0, np.zeros(shape, np.float32), "unit")
    model = classifier.build(config.Section(card["model"]), spec)

    @jax.jit
    def features(x: Float[Array, "B H W C"]) -> dict[str, Float[Array, "B _"]]:
        latent = model.encode(params, {}, x, jax.random.split(jax.random.key(0), x.shape[0]))  # draws nothing
        return {"features": latent.mean, "logits": latent.info["logits"]}

    net = card["model"]["net"]
    trunk = config.select("latent.nets", net["name"], "trunk", "model.net.name")(config.Section(net), shape)

    def maps(x: Float[Array, "B H W C"]) -> list[Float[Array, "B h w c"]]:
        return [layer for layer in trunk.apply({"params": params["trunk"]}, x).values() if layer.ndim == 4]

    return Extractor(name, found, features, maps, card)


def write(path: Path, params: dict[str, Any], card: dict[str, Any]) -> str:
    """Writes an extractor; returns the SHA-256 of its weights."""
    params = jax.tree.map(np.asarray, params)
    card = {**card, "sha256": digest(params)}
    np.savez_compressed(path, card=json.dumps(card), **flatten_dict(params, sep="/"))
    return card["sha256"]
