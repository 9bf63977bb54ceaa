"""In what precision a model computes; parameters, gradients, optimiser state, averages and losses are always float32.

The one place where `train.precision` acts: it puts every function of a model inside `layers.computing_in`, so that no
family, net or loss knows of it. With "bf16" the products of layers and of attention take bfloat16 operands and so do
the activations between them; softmax, the statistics of normalisation, sums over examples, pixels and tokens, outputs
of nets and everything behind them stay float32. Bfloat16 has float32's range, so nothing needs a loss scale.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax.numpy as jnp

from latent.errors import unknown_name
from latent.nets.layers import computing_in
from latent.types import Model

DEFAULT = "float32"
DTYPES = {DEFAULT: None, "bf16": jnp.bfloat16}
"""What `train.precision` may be; None leaves every product in the dtype of its operands."""


def computed(model: Model, precision: str) -> Model:
    """The model with its nets computing in that precision: itself for float32."""
    if precision not in DTYPES:
        raise unknown_name("train.precision", precision, DTYPES)
    dtype = DTYPES[precision]
    if dtype is None:
        return model

    def within(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def inside(*args: Any, **options: Any) -> Any:
            with computing_in(dtype):
                return function(*args, **options)

        return inside

    codes = model.codes and model.codes._replace(
        encode=within(model.codes.encode), identity={**model.codes.identity, "precision": precision}
    )
    return model._replace(
        players=tuple(player._replace(loss=within(player.loss)) for player in model.players),
        likelihoods={name: within(function) for name, function in model.likelihoods.items()},
        edits={name: within(function) for name, function in model.edits.items()},
        codes=codes,
        **{name: within(value) for name, value in model._asdict().items() if callable(value)},
    )
