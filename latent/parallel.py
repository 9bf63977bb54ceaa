"""Drivers: how one per-device dispatch runs on several devices. Nothing else in the project knows.

The default driver is literally `jax.pmap` over a step with an axis name. State is replicated with `in_axes` and
`out_axes` None, so that no array has a stacked device axis and neither checkpoints nor evaluation can tell how many
devices there were.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from latent.errors import UserError, unknown_name

AXIS = "data"


class Driver(NamedTuple):
    """How to run a dispatch.

    axis       axis name a per-device step must reduce over; None where the batch a step sees is the global one
    compile    dispatch(state, seed, resident, inputs) -> the same, compiled, with the state donated
    place      host inputs [S, B, ...] -> inputs laid out over the devices
    replicate  tree -> the tree on every device
    replicated the sharding of a replicated array
    split      sharding of an array whose leading axis is the batch (evaluation, which runs in the global view)
    """

    devices: tuple[Any, ...]
    axis: str | None
    compile: Callable[[Callable], Callable]
    place: Callable[[PyTree], PyTree]
    replicate: Callable[[PyTree], PyTree]
    replicated: NamedSharding
    split: NamedSharding


def build(name: str, num_devices: int | None, batch_size: int, microbatches: int = 1) -> Driver:
    """Builds the driver `parallel.driver`, over the first `num_devices` devices (None: all local ones)."""
    devices = jax.local_devices()
    if num_devices is not None:
        if not 0 < num_devices <= len(devices):
            raise UserError(f"parallel.devices={num_devices}: this machine has {len(devices)} (allowed 1 to that).")
        devices = devices[:num_devices]
    if batch_size % (len(devices) * microbatches):
        parts = f"{len(devices)} devices in use" + (f" x train.microbatches={microbatches}" if microbatches > 1 else "")
        raise UserError(
            f"train.batch_size={batch_size} is not divisible by the {parts}; change it or parallel.devices."
        )
    if name != "pmap":
        raise unknown_name("parallel.driver", name, ("pmap",))
    return _pmap(tuple(devices))


def _pmap(devices: tuple[Any, ...]) -> Driver:
    mesh = Mesh(np.asarray(devices), (AXIS,))
    replicated, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(AXIS))

    def compile_dispatch(dispatch: Callable) -> Callable:
        return jax.pmap(
            dispatch,
            axis_name=AXIS,
            in_axes=(None, None, None, 0),
            out_axes=(None, None),
            devices=devices,
            donate_argnums=0,
        )

    def place(inputs: PyTree) -> PyTree:
        def lay(leaf: np.ndarray) -> jax.Array:
            steps, batch = leaf.shape[:2]
            shards = leaf.reshape(steps, len(devices), batch // len(devices), *leaf.shape[2:]).swapaxes(0, 1)
            return jax.device_put(shards, split)

        return jax.tree.map(lay, inputs)

    return Driver(
        devices=devices,
        axis=AXIS,
        compile=compile_dispatch,
        place=place,
        replicate=lambda tree: jax.device_put(tree, replicated),
        replicated=replicated,
        split=split,
    )
