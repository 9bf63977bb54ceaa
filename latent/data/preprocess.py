"""From stored pixels to what a model sees: once on the host where it is the same every time, else in the step.

The four ways to binarise are four different targets (Burda et al. 2016, appendix; their numbers never share a
column): `none` keeps grey values, `dynamic` draws every pixel anew at every use, `seeded` does so in training only and
draws validation and test once, `static` takes a set that is binary already.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Num, UInt8, UInt32

from latent.data import arrays
from latent.data.arrays import split_digest
from latent.data.dataset import Dataset
from latent.data.rows import Rows
from latent.errors import UserError, unknown_name
from latent.types import Batch, DataSpec, PrepareFn, StreamFn

BINARISE = ("none", "dynamic", "seeded", "static")


def build(section: Any, dataset: Dataset) -> tuple[Dataset, DataSpec, PrepareFn]:
    """The data set after what is done once, what a model may know of it, and the function for the step.

    That function takes a raw batch (x as stored), random streams and whether this is training, and returns the batch
    with x as float32 in the model's range. Raises UserError for what cannot be done to this set.
    """
    if dataset.splits["train"].x.dtype != np.uint8:
        return _vectors(section, dataset)
    binarise, dequantise = section.binarise, section.dequantise
    if binarise not in BINARISE:
        raise unknown_name("data.binarise", binarise, BINARISE)
    if dequantise and binarise != "none":
        raise UserError(f"data.dequantise=True and data.binarise={binarise!r} exclude each other.")
    if binarise == "seeded":
        dataset = _draw_once(dataset, section.binarise_seed)
    binary = all(np.isin(chunk, (0, 255)).all() for chunk in arrays.chunks(dataset.splits["test"].x))
    if binarise == "static" and not binary:
        raise UserError(f"data.binarise='static': {dataset.name} is not binary (binarized_mnist is).")
    height, width, channels = dataset.splits["train"].x.shape[1:]
    crop, augment = _crop(section, height, width), section.flip
    padding = section.crop_padding if crop else 0

    def prepare(raw: Batch, streams: StreamFn, train: bool) -> Batch:
        x = jnp.asarray(raw["x"])
        if crop:
            x = random_crop(x, streams("data/crop"), crop, padding) if train else centre_crop(x, crop)
        if augment and train:
            x = random_flip(x, streams("data/flip"))
        if binarise in ("dynamic", "seeded"):  # what was drawn once is 0 or 255, and drawing it again changes nothing
            x = bernoulli(x, streams("data/binarise"))
        elif dequantise:
            x = dequantised(x, streams("data/dequantise"))
        else:
            x = x.astype(jnp.float32) / 255.0
        return {**raw, "x": x}

    shape = (crop, crop, channels) if crop else (height, width, channels)
    mean = arrays.mean(dataset.splits["train"].x)
    mean = np.asarray(centre_crop(mean[None], crop)[0]) if crop else mean
    mean = (mean + 0.5) / 256.0 if dequantise else mean / 255.0
    support = "binary" if binarise != "none" or (binary and not dequantise) else "unit"
    levels = 256 if support == "unit" and not dequantise else 0
    return dataset, _spec(dataset, shape, mean, support, levels), prepare


def drawn(section: Any) -> tuple[str, ...]:
    """The keys of the section `data` by which training sees other pixels of an example at every use."""
    chosen = {
        "flip": section.flip,
        "crop": section.crop is not None,
        "dequantise": section.dequantise,
        "binarise": section.binarise in ("dynamic", "seeded"),
    }
    return tuple(f"data.{key}={section[key]}" for key, random in chosen.items() if random)


def _vectors(section: Any, dataset: Dataset) -> tuple[Dataset, DataSpec, PrepareFn]:
    for key, neutral in (
        ("binarise", "none"),
        ("dequantise", False),
        ("flip", False),
        ("resize", None),
        ("crop", None),
    ):
        if section[key] != neutral:
            raise UserError(f"data.{key}={section[key]!r} is for images; {dataset.name} holds vectors.")
    x = dataset.splits["train"].x
    spec = _spec(dataset, x.shape[1:], arrays.mean(x), "real")
    return dataset, spec, lambda raw, streams, train: {**raw, "x": jnp.asarray(raw["x"])}


def _spec(
    dataset: Dataset, shape: tuple[int, ...], mean: Float[np.ndarray, "..."], support: str, levels: int = 0
) -> DataSpec:
    size, factors = len(dataset.splits["train"].x), dict(dataset.factors)
    return DataSpec(
        dataset.name,
        shape,
        dataset.num_classes,
        size,
        mean.astype(np.float32),
        support,
        factors,
        levels,
        dataset.vocabulary,
    )


# Once, on the host ---------------------------------------------------------------------------------------------


def _draw_once(dataset: Dataset, seed: int) -> Dataset:
    """Validation, then test, drawn with numpy's legacy generator: the order and the generator are the protocol of
    Norouzi et al. 2020 (seed 777), whose splits differ from ours."""
    generator, splits = np.random.RandomState(seed), dict(dataset.splits)
    for name in ("validation", "test"):
        x = splits[name].x
        if isinstance(x, Rows):
            raise UserError(
                f"data.binarise='seeded' draws the {name} split as a whole; its {x.nbytes} bytes exceed "
                "data.device_budget."
            )
        splits[name] = splits[name]._replace(x=(255 * generator.binomial(1, x / 255.0)).astype(np.uint8))
    return dataset._replace(splits=splits, digests={name: split_digest(split) for name, split in splits.items()})


def _crop(section: Any, height: int, width: int) -> int:
    side = section.crop
    if side is None:
        return 0
    if not 0 < side <= min(height, width):
        raise UserError(f"data.crop={side} must lie between 1 and {min(height, width)}, the size of the images.")
    if section.crop_padding < 0:
        raise UserError(f"data.crop_padding={section.crop_padding} must not be negative.")
    return side


# In the step, a key for every example --------------------------------------------------------------------------


def centre_crop(x: Num[Array | np.ndarray, "B H W C"], side: int) -> Num[Array | np.ndarray, "B side side C"]:
    """The middle of every image."""
    top, left = (x.shape[1] - side) // 2, (x.shape[2] - side) // 2
    return x[:, top : top + side, left : left + side]


def random_crop(
    x: Num[Array, "B H W C"], keys: Key[Array, "B"], side: int, padding: int
) -> Num[Array, "B side side C"]:
    """A random window of every image, after `padding` zeros on each side of it."""
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    limits = jnp.array([x.shape[1] - side + 1, x.shape[2] - side + 1])
    corners = jax.vmap(lambda key: jax.random.randint(key, (2,), 0, limits))(keys)
    cut = lambda image, corner: jax.lax.dynamic_slice(  # noqa: E731
        image, (corner[0], corner[1], 0), (side, side, image.shape[-1])
    )
    return jax.vmap(cut)(x, corners)


def random_flip(x: Num[Array, "B H W C"], keys: Key[Array, "B"]) -> Num[Array, "B H W C"]:
    """Every image, mirrored left to right with probability one half."""
    chosen = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(chosen[:, None, None, None], x[:, :, ::-1], x)


def bernoulli(x: UInt8[Array, "B ..."], keys: Key[Array, "B"]) -> Float[Array, "B ..."]:
    """0 or 1 for every pixel, 1 with probability pixel / 255 (to 2^-16; 0 and 255 are certain).

    Each 32-bit word of the generator serves two pixels: on CPU the generator is what costs.
    """
    # 65536 / 255 of a pixel, rounded, without a table: 0 -> 0 (never), 255 -> 65536 (always).
    thresholds = 257 * x.astype(jnp.uint32) + (x >= 128)
    return (_sixteen_bits(keys, x.shape) < thresholds).astype(jnp.float32)


def dequantised(x: UInt8[Array, "B ..."], keys: Key[Array, "B"]) -> Float[Array, "B ..."]:
    """(pixel + u) / 256, in [0, 1): u uniform on a grid of 2^-16, exact in float32; a finer u can round up to 1."""
    return (x.astype(jnp.uint32) * 65536 + _sixteen_bits(keys, x.shape)).astype(jnp.float32) / 2.0**24


def _sixteen_bits(keys: Key[Array, "B"], shape: tuple[int, ...]) -> UInt32[Array, "B ..."]:
    size = int(np.prod(shape[1:]))
    words = jax.vmap(lambda key: jax.random.bits(key, (-(-size // 2),), jnp.uint32))(keys)
    return jnp.concatenate([words & 0xFFFF, words >> 16], axis=1)[:, :size].reshape(shape)
