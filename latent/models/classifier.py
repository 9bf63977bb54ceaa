"""Classifiers: one player, a trunk of named layers and a linear head.

Their layers are feature extractors for metrics and objects of study: `encode` gives any of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from latent import config
from latent.errors import UserError, unknown_name
from latent.nets.mlp import dense
from latent.types import Batch, Context, DataSpec, Extra, Latent, Loss, Model, Params, Player

PLAYER = "classifier"


class Nets(NamedTuple):
    """The trunk (x -> {layer: activation}, the last one a vector) and the head on its last layer."""

    trunk: nn.Module
    head: nn.Module

    def init(self, key: Key[Array, ""], batch: Batch) -> tuple[Params, Extra]:
        trunk_key, head_key = jax.random.split(key)
        x = batch["x"][:1]
        params = {"trunk": self.trunk.init(trunk_key, x)["params"]}
        last = list(self.layers(params, x).values())[-1]
        return params | {"head": self.head.init(head_key, last)["params"]}, {}

    def layers(self, params: Params, x: Float[Array, "B ..."]) -> dict[str, Float[Array, "B ..."]]:
        return self.trunk.apply({"params": params["trunk"]}, x)

    def logits(self, params: Params, features: Float[Array, "B d"]) -> Float[Array, "B classes"]:
        return self.head.apply({"params": params["head"]}, features)


def dropout(x: Float[Array, "B d"], keys: Key[Array, "B"], rate: float) -> Float[Array, "B d"]:
    """Dropout with a key for every example (Srivastava et al. 2014), scaled to keep the mean."""
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, x.shape[1:]))(keys)
    return jnp.where(kept, x / (1.0 - rate), 0.0)


def build(section: config.Section, spec: DataSpec) -> Model:
    """Builds the classifier that the config section `model` describes.

    `encode(..., layer=NAME)` gives the activations of any layer, flattened; by default the last one before the head.
    Raises UserError for a set without classes and for shapes that the trunk cannot take.
    """
    if spec.num_classes < 2:
        raise UserError(f"model.name='classifier' needs classes; data.name={spec.name!r} has {spec.num_classes}.")
    rate, smoothing = section.dropout, section.label_smoothing
    for name, value in (("dropout", rate), ("label_smoothing", smoothing)):
        if not 0.0 <= value < 1.0:
            raise UserError(f"model.{name}={value} must lie in [0, 1).")
    make_trunk = config.select("latent.nets", section.net.name, "trunk", "model.net.name")
    nets = Nets(make_trunk(section.net, spec.shape), dense(spec.num_classes))

    def measure(logits: Float[Array, "B classes"], label: Any, smooth: float) -> dict[str, Float[Array, "B"]]:
        target = optax.smooth_labels(jax.nn.one_hot(label, spec.num_classes), smooth)
        correct = jnp.argmax(logits, axis=1) == label
        return {
            "cross_entropy": optax.softmax_cross_entropy(logits, target),
            "accuracy": correct.astype(jnp.float32),
        }

    def loss(params: Params, extra: Extra, batch: Batch, context: Context) -> Loss:
        features = list(nets.layers(params, batch["x"]).values())[-1]
        if rate:
            features = dropout(features, context.keys("dropout"), rate)
        terms = measure(nets.logits(params, features), batch["label"], smoothing)
        return Loss(jnp.mean(terms["cross_entropy"]), terms, extra)

    def terms(params: Params, extra: Extra, batch: Batch, context: Context) -> dict[str, Float[Array, "B"]]:
        features = list(nets.layers(params, batch["x"]).values())[-1]
        return measure(nets.logits(params, features), batch["label"], 0.0)

    def encode(
        params: Params, extra: Extra, x: Float[Array, "B ..."], keys: Key[Array, "B"], *, layer: str = ""
    ) -> Latent:
        layers = nets.layers(params, x)
        if layer and layer not in layers:
            raise unknown_name("layer", layer, layers)
        features = list(layers.values())[-1]
        logits = nets.logits(params, features)
        chosen = (layers[layer] if layer else features).reshape(x.shape[0], -1)
        return Latent(chosen, chosen, {"logits": logits, "probability": jax.nn.softmax(logits)})

    return Model(
        init=nets.init,
        players=(Player(PLAYER, ("trunk", "head"), loss),),
        terms=terms,
        encode=encode,
    )
