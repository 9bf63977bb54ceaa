"""The activations inside a net, whatever function of a model runs it. The model need not know that it is watched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, Float

from latent.analysis.probing import linear
from latent.nets.conv import Conv


def recorded(function: Callable[[], Any], component: Any) -> dict[str, Float[Array, "B H W C"]]:
    """Runs function() and returns what every convolution of one net gave when it ran first, in order, by its path.

    The net is the one whose parameters have the names and shapes of `component` (those of the encoder, the critic): a
    function may run several. To be called inside `jit` where speed matters, with all that the function uses.
    """
    shapes, found = jax.tree.map(np.shape, component), {}

    def of_component(module: nn.Module) -> bool:
        return jax.tree.map(np.shape, dict(module.scope.root.variables().get("params", {}))) == shapes

    def watch(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        output, module = call(*args, **kwargs), context.module
        if isinstance(module, Conv) and context.method_name == "__call__" and of_component(module):
            found.setdefault("/".join(module.path), output)
        return output

    with nn.intercept_methods(watch):
        function()
    return found


def pooled(maps: Float[np.ndarray, "N H W C"], side: int = 4) -> Float[np.ndarray, "N d"]:
    """Feature maps averaged to at most side x side places, as vectors."""
    rows = [part.mean(axis=1) for part in np.array_split(maps, min(side, maps.shape[1]), axis=1)]
    stacked = np.stack(rows, axis=1)
    columns = [part.mean(axis=2) for part in np.array_split(stacked, min(side, maps.shape[2]), axis=2)]
    return np.stack(columns, axis=2).reshape(len(maps), -1)


def probe(features: Float[np.ndarray, "N d"], labels: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Accuracy, and its standard error, of a linear classifier on features (Alain & Bengio 2016, arXiv 1610.01644):
    fitted on a random half of the examples, judged on the other; features standardised by the first half."""
    order = np.random.default_rng(seed).permutation(len(features))
    fitted, judged = order[: len(order) // 2], order[len(order) // 2 :]
    right = linear(features[fitted], labels[fitted], features[judged]) == labels[judged]
    return float(right.mean()), float(right.std() / np.sqrt(len(right)))
