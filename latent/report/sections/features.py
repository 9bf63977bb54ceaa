"""Inside a convolutional net: feature maps, what each channel looks for, what a linear reader finds in each layer."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from latent import rng
from latent.analysis import activation, layers
from latent.report import images, inside
from latent.report.evidence import Evidence
from latent.report.page import Absent, Section, number
from latent.report.plots import Plot, rounded
from latent.types import Context

TITLE = "Inside the convolutions"
EXAMPLES = 3
CHANNELS = 12
"""Channels of a layer that are shown, the most active first."""

PROBED = 1000
"""Examples whose activations are kept."""


def section(evidence: Evidence) -> Section | Absent:
    """Needs a net with convolutions that sees images."""
    if not evidence.is_image:
        return Absent(TITLE, f"Examples of shape {evidence.spec.shape} are no pictures for convolutions.")
    component = inside.component(evidence.run)
    if component is None:
        return Absent(TITLE, f"This {evidence.family} has no net of its own that looks at images.")
    found = inside.activations(evidence.run, evidence.split, evidence.rows[:PROBED])
    if not found:
        return Absent(TITLE, f"The {component} of this {evidence.family} has no convolutions.")
    label = evidence.label[:PROBED] if evidence.label is not None else None
    told, plots = [], {}
    for place, (name, maps) in enumerate(found.items()):
        channels = np.argsort(-np.abs(maps).mean(axis=(0, 1, 2)), kind="stable")[:CHANNELS]
        features = layers.pooled(maps)
        accuracy = layers.probe(features, label) if label is not None and len(np.unique(label)) > 1 else None
        plots[f"layer-{place}"] = _plane(features, label)
        told.append(
            {
                "name": name,
                "shape": " \u00d7 ".join(map(str, maps.shape[1:])),
                "accuracy": "" if accuracy is None else f"{accuracy[0]:.3f} ± {accuracy[1]:.3f}",
                "maps": [images.each(_greys(maps[row][..., channels])) for row in range(EXAMPLES)],
                "wanted": images.each(_wanted(evidence, component, name, channels)),
                "plot": f"layer-{place}",
            }
        )
    lead = (
        f"Convolutions of the {component}, before their activation: what they make of {EXAMPLES} examples, and images "
        "that the unit in the middle of each channel answers to most (gradient ascent from noise)."
    )
    if label is not None:
        lead += (
            " Linear reader: the accuracy of a logistic regression on the layer, averaged to 4 by 4 places, over "
            f"{number(len(label) - len(label) // 2)} examples that it was not fitted to."
        )
    return Section(TITLE, lead, {"layers": told, "originals": images.each(evidence.x[:EXAMPLES])}, plots)


def _greys(maps: np.ndarray) -> np.ndarray:
    """Channels [H, W, C] as grey images [C, H, W, 1], each from its lowest to its highest value."""
    low, high = maps.min(axis=(0, 1)), maps.max(axis=(0, 1))
    return np.moveaxis((maps - low) / np.maximum(high - low, 1e-9), 2, 0)[..., None]


def _plane(features: np.ndarray, label: np.ndarray | None) -> Plot:
    """The first two principal components of a layer, coloured by class."""
    centred = features - features.mean(axis=0)
    points = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    groups = np.zeros(len(points), int) if label is None else label
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": str(group),
            "x": rounded(points[groups == group, 0], 3),
            "y": rounded(points[groups == group, -1], 3),
            "marker": {"size": 3.5, "opacity": 0.7},
        }
        for group in np.unique(groups)
    ]
    bare = {"showticklabels": False, "zeroline": False}
    return {"data": data, "layout": {"showlegend": False, "xaxis": bare, "yaxis": bare}}


def _wanted(evidence: Evidence, component: str, name: str, channels: np.ndarray) -> np.ndarray:
    """For every channel the image that its unit in the middle answers to most."""
    model, state = evidence.model, evidence.run.state
    count = len(channels)

    def activate(x: Any) -> Any:
        places = jnp.arange(count)
        batch = {"x": x, "label": jnp.zeros(count, jnp.int32), "index": places, "position": places}
        same = lambda tree: tree  # noqa: E731
        streams = rng.evaluation_stream(0, batch["index"])
        context = Context(streams, state.step, state.hparams, False, same, same)
        maps = inside.of_batch(model, state.params, state.extra, batch, context, component=component)[name]
        return maps[places, maps.shape[1] // 2, maps.shape[2] // 2, channels]

    return np.asarray(activation.maximise(activate, evidence.spec.shape, rng.sample_keys(0, jnp.arange(count))))
