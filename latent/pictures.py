"""Arrays to picture grids: reconstructions and samples. Knows a model's functions, no file and no logger."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8

from latent import rng
from latent.evaluation_data import EvaluationData
from latent.types import DataSpec, Model, State


def grid(
    images: Float[np.ndarray, "N H W C"], columns: int, scale: int = 1, gap: int = 2
) -> UInt8[np.ndarray, "height width 3"]:
    """Images in [0, 1], row by row, on a light ground; `scale` repeats pixels, `gap` is the ground
    between pictures, times the root of `scale`."""
    pixels = np.rint(255 * np.clip(np.asarray(images, np.float32), 0.0, 1.0)).astype(np.uint8)
    pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3)).repeat(scale, axis=1).repeat(scale, axis=2)
    count, height, width, _ = pixels.shape
    gap = round(gap * scale**0.5)
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 245, np.uint8)
    for place, picture in enumerate(pixels):
        top, left = gap + (place // columns) * (height + gap), gap + (place % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def magnification(spec: DataSpec) -> int:
    """How many screen pixels a pixel of small images takes, so that an 8x8 digit can be seen."""
    return max(1, round(48 / max(spec.shape[:2])))


def is_image(spec: DataSpec) -> bool:
    """Whether examples can be shown: [H, W, 1 or 3] in [0, 1]."""
    return len(spec.shape) == 3 and spec.shape[-1] in (1, 3) and spec.support != "real"


def beside_nearest(
    samples: Float[np.ndarray, "N H W C"],
    neighbours: Float[np.ndarray, "N k H W C"],
    distances: Float[np.ndarray, "N k"],
    path: Path,
    title: str,
) -> None:
    """Draws every sample above its nearest training examples, the nearest first, each with its distance, as PNG."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    count, near = distances.shape
    rows = [samples, *np.swapaxes(neighbours, 0, 1)]
    names = ["sample", "nearest", *(f"{place}. nearest" for place in range(2, near + 1))]
    figure, axes = plt.subplots(
        near + 1, count, figsize=(0.8 * count + 0.9, 0.98 * (near + 1) + 0.5), layout="constrained", squeeze=False
    )
    for row, (name, images) in enumerate(zip(names, rows, strict=True)):
        for column, image in enumerate(np.clip(images, 0.0, 1.0)):
            place = axes[row, column]
            place.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1)
            place.set(xticks=[], yticks=[])
            place.spines[:].set(visible=row == 0, color="#d55e00", linewidth=1.5)
            if row:
                place.set_xlabel(f"{distances[column, row - 1]:.2f}", fontsize=7, labelpad=1)
        axes[row, 0].set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=140)
    plt.close(figure)


class Gallery:
    """The pictures a run can make of itself; functions are compiled once."""

    def __init__(self, model: Model, spec: DataSpec, data: EvaluationData, side: int):
        self._model, self._spec, self._data, self._side = model, spec, data, side
        self._decode_encoded = jax.jit(self._reconstructed)
        self._sample_keys = jax.jit(rng.sample_keys)  # key by key, as they would be drawn otherwise, they are slow

    def _reconstructed(self, state: State, x: Any, seed: Any, index: Any) -> Any:
        keys = rng.evaluation_stream(seed, index)("posterior")
        code = self._model.encode(state.params, state.extra, x, keys)
        return self._model.decode(state.params, state.extra, code.mean)

    def over(self, data: EvaluationData) -> Gallery:
        """The same gallery over other data; what is compiled is shared."""
        other = copy.copy(self)
        other._data = data
        return other

    def draw(self, state: State) -> Iterator[tuple[str, UInt8[np.ndarray, "height width 3"]]]:
        """(name, grid) of what the family can show: reconstructions (each original above its copy) and samples."""
        if not self._side or not is_image(self._spec):
            return
        scale = magnification(self._spec)
        if self._model.encode is not None and self._model.decode is not None:
            yield "reconstructions", grid(self.reconstructions(state), self._side, scale)
        if self._model.sample is not None:
            keys = self._sample_keys(np.uint32(self._data.seed), np.arange(self._side**2))
            samples = self._model.sample(state.params, state.extra, keys, None)
            yield "samples", grid(np.asarray(samples), self._side, scale)

    def reconstructions(self, state: State) -> Float[np.ndarray, "N H W C"]:
        """Rows of originals, each followed by the row of their reconstructions."""
        count = self._side * max(1, self._side // 2)
        batch = self._data.batch(count)
        seed = np.uint32(self._data.seed)
        copies = np.asarray(self._decode_encoded(state, batch["x"], seed, batch["index"]))
        originals = np.asarray(batch["x"])
        rows = [
            row
            for start in range(0, len(originals), self._side)
            for row in (originals[start : start + self._side], copies[start : start + self._side])
        ]
        return np.concatenate(rows)
