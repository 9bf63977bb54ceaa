"""What the convolutions of a run make of examples: the net of every family that looks at images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from latent import pictures
from latent.analysis import layers
from latent.run import Run
from latent.types import Batch, Context, Extra, Indices, Model, Params

COMPONENTS = ("encoder", "trunk", "critic")
"""Nets that look at images: of an autoencoder, a classifier, a GAN."""


def component(run: Run) -> str | None:
    """The net of this run that looks at images; None where there is none of its own."""
    present = [name for name in COMPONENTS if name in run.state.params]
    return present[0] if present and pictures.is_image(run.spec) else None


def activations(run: Run, split: str, rows: Indices) -> dict[str, np.ndarray]:
    """{layer: feature maps [N, H, W, C] before their activation} of these examples; empty without convolutions."""
    name = component(run)
    return {} if name is None else run.data(split).map(of_batch, run.state, rows=rows, component=name)


def of_batch(
    model: Model, params: Params, extra: Extra, batch: Batch, context: Context, *, component: str
) -> dict[str, Any]:
    """Activations of the component on a batch, by whichever function of the model runs it."""
    ways: dict[str, Callable[[], Any]] = {"critic": lambda: model.terms(params, extra, batch, context)}
    encode = lambda: model.encode(params, extra, batch["x"], context.keys("posterior"))  # noqa: E731
    return layers.recorded(ways.get(component, encode), params[component])
