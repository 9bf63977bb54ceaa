"""Random keys, derived and never carried (law 2).

While training a key is fold(seed, step, player, stream, position in the global batch); in evaluation and sampling
it is fold(seed, stream, index in the split or sample number). Noise therefore does not depend on the number of
devices, on the steps in a dispatch, or on where a run was resumed.
"""

from __future__ import annotations

import zlib

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from latent import threefry
from latent.types import Indices, Seed, StreamFn

threefry.write_out()  # the same bits, without a loop of small operations on CPU

TRAIN, EVALUATE, SAMPLE, INIT = range(4)
"""The purposes a seed serves; folded in first, so that no two of them share a key."""


def fold_name(key: Key[Array, ""], name: str) -> Key[Array, ""]:
    """Folds a name into a key, by a hash that is stable between processes (Python's own is not)."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def fold_each(key: Key[Array, ""], numbers: Indices) -> Key[Array, "B"]:
    """One key per number."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, numbers)


def _purpose(seed: Seed, purpose: int) -> Key[Array, ""]:
    return jax.random.fold_in(jax.random.key(seed), purpose)


def init_key(seed: Seed) -> Key[Array, ""]:
    """The key that initial parameters are drawn from."""
    return _purpose(seed, INIT)


def training_stream(seed: Seed, step: Int[Array, ""] | np.integer | int, player: str, positions: Indices) -> StreamFn:
    """Streams of one player at one step; `positions` are places in the global batch."""
    key = fold_name(jax.random.fold_in(_purpose(seed, TRAIN), step), player)
    return lambda stream: fold_each(fold_name(key, stream), positions)


def evaluation_stream(seed: Seed, indices: Indices) -> StreamFn:
    """Streams of one evaluation; `indices` are places in the split."""
    key = _purpose(seed, EVALUATE)
    return lambda stream: fold_each(fold_name(key, stream), indices)


def sample_keys(seed: Seed, numbers: Indices) -> Key[Array, "N"]:
    """One key per sample number: sample i is the same whatever batch it is made in."""
    return fold_each(_purpose(seed, SAMPLE), numbers)


def fold_stream(streams: StreamFn, number: Int[Array, ""] | np.integer | int) -> StreamFn:
    """The same streams, independent for every `number` (chunks of importance samples, repeated draws)."""
    return lambda stream: jax.vmap(jax.random.fold_in, in_axes=(0, None))(streams(stream), number)


def classes(keys: Key[Array, "N"], count: int) -> Int[Array, "N"]:
    """A class for every sample, each of `count` alike, by keys that nothing else of the sample is drawn with."""
    return jax.vmap(lambda key: jax.random.randint(fold_name(key, "label"), (), 0, count))(keys)


def normal(keys: Key[Array, "B"], *shape: int) -> Float[Array, "B ..."]:
    """Standard normal noise of `shape` for every key."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
