"""Inception-v3 as the FID has it: the network of 2015 whose pooled features Heusel et al. 2017 compare.

Szegedy et al. 2016 (arXiv 1512.00567) with the changes that the graph of 2015-12-05 has: averages that do not count
what pads, a maximum in the last block, 1008 classes. Its weights are the user's own file, converted once by
scripts/convert_inception.py; only with the published file is a distance called FID.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from latent.checkpoint import digest
from latent.errors import UserError
from latent.extractors import weight_files
from latent.extractors.contract import Extractor
from latent.extractors.convolution import averaged, convolved, folded, pooled

NAME = "inception"
STORED = "inception-2015-12-05.npz"
PUBLISHED = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""SHA-256 of the published file, pt_inception-2015-12-05-6726825d.pth."""
SIDE, EPSILON, CLASSES = 299, 1e-3, 1008
FEATURES = 2048
CONVERT = "python -m scripts.convert_inception pt_inception-2015-12-05-6726825d.pth"


class Layer(NamedTuple):
    """A convolution, normalised, with a ReLU: its name in its block, channels out, kernel, stride, padding."""

    name: str
    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"


def _valid(name: str, width: int, stride: int = 2) -> Layer:
    return Layer(name, width, (3, 3), stride, "VALID")


AVERAGE, MAXIMUM, HALVE = "average", "maximum", "halve"
"""Pools of three pixels a side: stride 1 and the size kept, but for the last, which has stride 2 and no padding."""


def _a(pool: int) -> tuple:
    return (
        (Layer("branch1x1", 64),),
        (Layer("branch5x5_1", 48), Layer("branch5x5_2", 64, (5, 5))),
        (Layer("branch3x3dbl_1", 64), Layer("branch3x3dbl_2", 96, (3, 3)), Layer("branch3x3dbl_3", 96, (3, 3))),
        (AVERAGE, Layer("branch_pool", pool)),
    )


def _c(width: int) -> tuple:
    wide, high = (1, 7), (7, 1)
    return (
        (Layer("branch1x1", 192),),
        (Layer("branch7x7_1", width), Layer("branch7x7_2", width, wide), Layer("branch7x7_3", 192, high)),
        (
            Layer("branch7x7dbl_1", width),
            Layer("branch7x7dbl_2", width, high),
            Layer("branch7x7dbl_3", width, wide),
            Layer("branch7x7dbl_4", width, high),
            Layer("branch7x7dbl_5", 192, wide),
        ),
        (AVERAGE, Layer("branch_pool", 192)),
    )


def _e(pool: str) -> tuple:
    return (
        (Layer("branch1x1", 320),),
        (
            Layer("branch3x3_1", 384),
            (Layer("branch3x3_2a", 384, (1, 3)), Layer("branch3x3_2b", 384, (3, 1))),
        ),
        (
            Layer("branch3x3dbl_1", 448),
            Layer("branch3x3dbl_2", 384, (3, 3)),
            (Layer("branch3x3dbl_3a", 384, (1, 3)), Layer("branch3x3dbl_3b", 384, (3, 1))),
        ),
        (pool, Layer("branch_pool", 192)),
    )


STEM = (
    _valid("Conv2d_1a_3x3", 32),
    _valid("Conv2d_2a_3x3", 32, stride=1),
    Layer("Conv2d_2b_3x3", 64, (3, 3)),
    HALVE,
    Layer("Conv2d_3b_1x1", 80),
    _valid("Conv2d_4a_3x3", 192, stride=1),
    HALVE,
)
BLOCKS = {
    "Mixed_5b": _a(32),
    "Mixed_5c": _a(64),
    "Mixed_5d": _a(64),
    "Mixed_6a": (
        (_valid("branch3x3", 384),),
        (Layer("branch3x3dbl_1", 64), Layer("branch3x3dbl_2", 96, (3, 3)), _valid("branch3x3dbl_3", 96)),
        (HALVE,),
    ),
    "Mixed_6b": _c(128),
    "Mixed_6c": _c(160),
    "Mixed_6d": _c(160),
    "Mixed_6e": _c(192),
    "Mixed_7a": (
        (Layer("branch3x3_1", 192), _valid("branch3x3_2", 320)),
        (
            Layer("branch7x7x3_1", 192),
            Layer("branch7x7x3_2", 192, (1, 7)),
            Layer("branch7x7x3_3", 192, (7, 1)),
            _valid("branch7x7x3_4", 192),
        ),
        (HALVE,),
    ),
    "Mixed_7b": _e(AVERAGE),
    "Mixed_7c": _e(MAXIMUM),
}
"""Blocks in order. A block is branches whose results are joined; a branch is layers and pools in order, and a tuple in
it layers side by side."""


def layout() -> dict[str, tuple[int, int, int, int]]:
    """{name: (out, in, height, width)} of every convolution of the network."""
    found: dict[str, tuple[int, int, int, int]] = {}

    def follow(branch: tuple, width: int, prefix: str) -> int:
        for part in branch:
            if isinstance(part, Layer):
                found[prefix + part.name] = (part.width, width, *part.kernel)
                width = part.width
            elif isinstance(part, tuple):
                width = sum(follow((layer,), width, prefix) for layer in part)
        return width

    width = follow(STEM, 3, "")
    for name, branches in BLOCKS.items():
        width = sum(follow(branch, width, f"{name}.") for branch in branches)
    return found


def converted(stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of a state dict of the published layout -> kernels and biases, normalisation folded in float64.

    Raises UserError naming the first array that is missing, of another shape, or not finite.
    """

    def checked(name: str, shape: tuple[int, ...]) -> np.ndarray:
        array = stored.get(name)
        if array is None or array.shape != shape:
            told = "is missing" if array is None else f"has shape {array.shape}"
            raise UserError(f"not the weights of Inception of 2015-12-05: {name} {told}, expected {shape}.")
        if not np.isfinite(array).all():
            raise UserError(f"the weights are damaged: {name} holds values that are not finite.")
        return array

    found = {}
    for name, shape in layout().items():
        normal = [checked(f"{name}.bn.{part}", shape[:1]) for part in ("weight", "bias", "running_mean", "running_var")]
        kernel, bias = folded(checked(f"{name}.conv.weight", shape), *normal, EPSILON)
        found |= {f"{name}/kernel": kernel, f"{name}/bias": bias}
    # The score of 2016 is on class values without their bias, as the graph's product has them.
    return found | {"classes/kernel": np.ascontiguousarray(checked("fc.weight", (CLASSES, FEATURES)).T)}


def write(path: Path, arrays: Mapping[str, np.ndarray], source: str) -> None:
    """Writes converted weights with the SHA-256 of the file they come from, all or nothing."""
    card = {"source_sha256": source, "sha256": digest(dict(arrays))}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez(file, card=json.dumps(card), **arrays)
    temporary.rename(path)


def place() -> Path:
    """Where converted weights lie."""
    return weight_files.folder() / STORED


def require(key: str) -> None:
    """UserError where the converted weights are absent; they are not read."""
    if not place().is_file():
        raise UserError(
            f"{key} needs the weights of Inception, which are not at {place()}. Convert your file once: {CONVERT}"
        )


def is_published() -> bool:
    """Whether the weights here are of the published file, so that a distance on them may be called FID."""
    require(f"extractor={NAME!r}")
    with np.load(place()) as stored:
        return json.loads(str(stored["card"]))["source_sha256"] == PUBLISHED


def load() -> Extractor:
    """The extractor, whose `sha256` is of the file that was converted. UserError where that was not done, or what it
    gave is damaged."""
    require(f"extractor={NAME!r}")
    with np.load(place()) as stored:
        card, arrays = json.loads(str(stored["card"])), {name: stored[name] for name in stored.files if name != "card"}
    if digest(arrays) != card["sha256"]:
        raise UserError(f"extractor={NAME!r}: {place()} is damaged. Convert your file again: {CONVERT}")
    seen = f"RGB, 8 bits, {SIDE} x {SIDE}, bilinear on TensorFlow 1's grid, (x - 128) / 128"
    features = functools.partial(_features, jax.device_put(arrays))
    told = {"shape": None, "num_classes": CLASSES, "input": seen}
    return Extractor(NAME, card["source_sha256"], features, lambda x: [], told, batch=25)


def prepared(x: Float[Array, "B H W C"], side: int = SIDE) -> Float[Array, "B _s _s 3"]:
    """What the graph sees of images in [0, 1]: RGB of 8 bits, resized, (x - 128) / 128.

    Row i of the result lies at i * H / side, between two rows of x, and is neither centred nor antialiased: the grid of
    TensorFlow 1.
    """
    x = jnp.round(255.0 * jnp.clip(jnp.broadcast_to(x, (*x.shape[:3], 3)), 0.0, 1.0))
    rows, columns = (_grid(length, side) for length in x.shape[1:3])
    x = jnp.einsum("ih,bhwc,jw->bijc", rows, x, columns, precision=jax.lax.Precision.HIGHEST)
    return (x - 128.0) / 128.0


def _grid(length: int, side: int) -> Float[np.ndarray, "side length"]:
    position = np.arange(side) * (length / side)
    low = np.floor(position).astype(int)
    matrix = np.zeros((side, length), np.float32)
    np.add.at(matrix, (np.arange(side), low), 1 - (position - low))
    np.add.at(matrix, (np.arange(side), np.minimum(low + 1, length - 1)), position - low)
    return matrix


@jax.jit
def _features(weights: Mapping[str, Array], x: Float[Array, "B H W C"]) -> dict[str, Float[Array, "B _"]]:
    found = jnp.mean(trunk(weights, prepared(x)), axis=(1, 2))
    logits = jnp.dot(found, weights["classes/kernel"], precision=jax.lax.Precision.HIGHEST)
    return {"features": found, "logits": logits}


def trunk(weights: Mapping[str, Any], x: Float[Array, "B H W 3"]) -> Float[Array, "B _h _w _c"]:
    """The last feature maps, of images of 75 pixels a side or more; weights of any widths, by the names of `layout`."""
    x = _branch(weights, "", STEM, x)
    for name, branches in BLOCKS.items():
        x = jnp.concatenate([_branch(weights, f"{name}.", branch, x) for branch in branches], axis=-1)
    return x


def _branch(weights: Mapping[str, Any], prefix: str, branch: tuple, x: Float[Array, "B H W c"]) -> Array:
    for part in branch:
        if part == HALVE:
            x = pooled(x, 3, 2)
        elif part == MAXIMUM:
            x = pooled(x, 3, 1, padding=1)
        elif part == AVERAGE:
            x = averaged(x, 3, padding=1)
        elif isinstance(part, Layer):
            kernel, bias = weights[f"{prefix}{part.name}/kernel"], weights[f"{prefix}{part.name}/bias"]
            x = jax.nn.relu(convolved(x, kernel, part.stride, part.padding) + bias)
        else:
            x = jnp.concatenate([_branch(weights, prefix, (layer,), x) for layer in part], axis=-1)
    return x
