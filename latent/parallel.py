"""Drivers: how one per-device dispatch runs on several devices. Nothing else in the project knows.

The default driver is literally `jax.pmap`, over a step with an axis name where there are several devices. State is
replicated with `in_axes` and `out_axes` None, so that no array has a stacked device axis and neither checkpoints nor
evaluation can tell how many devices there were. `mesh` runs the same step in the global view, where XLA splits the
batch; with `fsdp` it splits the large arrays of the state too (Rajbhandari et al. 2020, arXiv 1910.02054; Xu et al.
2020, arXiv 2004.13336).

Where several processes train together (hosts.py) a run's state lies on the devices of all of them, whatever the driver;
`jax.pmap` alone takes and gives arrays of one process, and `join` and `part` lead from one to the other.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from latent import hosts
from latent import population as members
from latent.data.feed import Feed, together
from latent.errors import UserError, unknown_name
from latent.hosts import AXIS
from latent.types import State

MEMBERS = "members"
LEAST = 2**12
"""Elements of the smallest array that fsdp splits."""


class Driver(NamedTuple):
    """How to run a dispatch.

    devices    all that compute, of every process
    axis       axis name a per-device step must reduce over; None where the batch a step sees is the global one
    compile    dispatch(state, seed, resident, inputs) -> the same, compiled, with the state donated where that pays
    place      host inputs [S, B, ...], of a process its rows, -> inputs laid out over the devices
    replicated the sharding of a replicated array that a dispatch takes
    split      sharding of an array whose leading axis is the batch, over the devices of this process (evaluation, which
               runs in the global view)
    lay        state, or its shapes -> where its arrays lie: one sharding for all, or one for each

    A driver trains one run, or a population of several that share a program:

    feed       [feed of each run] -> the feed of a dispatch
    join       [tree of each run] -> the tree that a dispatch takes: states, seeds
    part       state or metrics of a dispatch -> those of each run
    lift       step of one run -> step of what a dispatch takes
    crowd      how many runs a device trains
    """

    devices: tuple[Any, ...]
    axis: str | None
    compile: Callable[[Callable], Callable]
    place: Callable[[PyTree], PyTree]
    replicated: NamedSharding
    split: NamedSharding
    lay: Callable[[PyTree], PyTree]
    feed: Callable[[Sequence[Feed]], Feed] = lambda feeds: feeds[0]
    join: Callable[[Sequence[PyTree]], PyTree] = lambda trees: trees[0]
    part: Callable[[PyTree], Iterable[PyTree]] = lambda tree: (tree,)
    lift: Callable[[Callable], Callable] = lambda step: step
    crowd: int = 1


def build(name: str, num_devices: int | None, batch_size: int, microbatches: int = 1, fsdp: bool = False) -> Driver:
    """Builds the driver `parallel.driver`, over the first `num_devices` devices (None: all, of every process).

    Raises UserError for other names, devices that are not there or do not divide the batch, and fsdp without mesh.
    """
    if num_devices is not None and not hosts.alone():
        raise UserError(f"parallel.devices={num_devices}: several processes use all devices they have (leave it None).")
    devices = local(num_devices) if hosts.alone() else hosts.devices()
    if batch_size % (len(devices) * microbatches):
        parts = f"{len(devices)} devices in use" + (f" x train.microbatches={microbatches}" if microbatches > 1 else "")
        raise UserError(
            f"train.batch_size={batch_size} is not divisible by the {parts}; change it or parallel.devices."
        )
    if name not in DRIVERS:
        raise unknown_name("parallel.driver", name, DRIVERS)
    if fsdp and name != "mesh":
        raise UserError(f"parallel.fsdp=True needs parallel.driver='mesh', not {name!r}: pmap keeps the state whole.")
    return DRIVERS[name](devices, fsdp)


DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


def heed_determinism(settings: Mapping[str, Any]) -> None:
    """Asks XLA for what `train.deterministic` says; before JAX has looked for devices, or it has no effect."""
    flags = os.environ.get("XLA_FLAGS", "")
    if settings["train"]["deterministic"] and DETERMINISTIC not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {DETERMINISTIC}"


def donated(devices: tuple[Any, ...]) -> tuple[int, ...]:
    """Which arguments of a dispatch lend their memory to its results: the state, but not on CPU, where a step of a
    convolutional net takes longer with it (`scripts.bench_torch --only=vae` times such a step)."""
    return () if devices[0].platform == "cpu" else (0,)


def local(number: int | None) -> tuple[Any, ...]:
    """The first `number` local devices, or all. Raises UserError where there are not as many."""
    devices = jax.local_devices()
    if number is not None and not 0 < number <= len(devices):
        raise UserError(f"parallel.devices={number}: this machine has {len(devices)} (allowed 1 to that).")
    return tuple(devices[:number])


def _pmap(devices: tuple[Any, ...], fsdp: bool) -> Driver:
    everywhere = Mesh(np.asarray(devices), (AXIS,))
    mesh = everywhere.local_mesh
    replicated, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(AXIS))

    def compile_dispatch(dispatch: Callable) -> Callable:
        return jax.pmap(
            dispatch,
            axis_name=AXIS,
            in_axes=(None, None, None, 0),
            out_axes=(None, None),
            devices=devices,
            donate_argnums=donated(devices),
        )

    def place(inputs: PyTree) -> PyTree:
        def lay(leaf: np.ndarray) -> jax.Array:
            steps, batch = leaf.shape[:2]
            shards = leaf.reshape(steps, mesh.size, batch // mesh.size, *leaf.shape[2:]).swapaxes(0, 1)
            return jax.device_put(shards, split)

        return jax.tree.map(lay, inputs)

    return Driver(
        devices=devices,
        axis=AXIS if len(devices) > 1 else None,  # a device that is alone sees the whole batch
        compile=compile_dispatch,
        place=place,
        replicated=replicated,
        split=split,
        lay=lambda state: NamedSharding(everywhere, PartitionSpec()),
        join=lambda trees: hosts.near(trees[0]),
        part=lambda tree: (hosts.far(tree),),
    )


def _mesh(devices: tuple[Any, ...], fsdp: bool) -> Driver:
    mesh = Mesh(np.asarray(devices), (AXIS,))
    batches = NamedSharding(mesh, PartitionSpec(None, AXIS))

    def lay(state: PyTree) -> PyTree:
        spec = lambda leaf: fsdp_spec(leaf.shape, len(devices)) if fsdp else PartitionSpec()  # noqa: E731
        return jax.tree.map(lambda leaf: NamedSharding(mesh, spec(leaf)), state)

    def place(inputs: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(batches, leaf), inputs)

    def compile_dispatch(dispatch: Callable) -> Callable:
        def laid(state: PyTree, *arguments: PyTree) -> tuple[PyTree, PyTree]:
            new, metrics = dispatch(state, *arguments)
            return jax.lax.with_sharding_constraint(new, lay(new)), metrics

        return jax.jit(laid, donate_argnums=donated(devices))

    return Driver(
        devices=devices,
        axis=None,
        compile=compile_dispatch,
        place=place,
        replicated=NamedSharding(mesh, PartitionSpec()),
        split=NamedSharding(mesh.local_mesh, PartitionSpec(AXIS)),
        lay=lay,
    )


def fsdp_spec(shape: tuple[int, ...], devices: int) -> PartitionSpec:
    """How fully sharded data parallelism lays an array: split along its longest axis that the devices divide; whole
    where it has none, or fewer than `LEAST` elements, for which gathering costs more than it saves."""
    divisible = [length if length % devices == 0 else 0 for length in shape]
    if math.prod(shape) < LEAST or not any(divisible):
        return PartitionSpec()
    axis = divisible.index(max(divisible))
    return PartitionSpec(*[None] * axis, AXIS)


DRIVERS = {"pmap": _pmap, "mesh": _mesh}


class Parts:
    """What belongs to each of several runs: made when it is asked for, so that devices hold one at a time. Those
    `on_host` are for whoever needs it on no device."""

    def __init__(self, count: int, make: Callable[[int], PyTree], place: Callable[[PyTree], PyTree] = lambda x: x):
        self._place = place
        self.on_host = [make(number) for number in range(count)]

    def __iter__(self) -> Iterator[PyTree]:
        return map(self._place, self.on_host)


def population(num_devices: int | None, count: int, state: State, shared: Sequence[str], mapped: bool) -> Driver:
    """The driver of `count` runs at once, spread over devices; a run lies whole on one of them.

    `state` says what the state of one run is made of, `shared` which components of it all runs share, `mapped` whether
    the runs of a device are mapped or unrolled. No more devices are used than shorten the work; where the runs do not
    divide evenly, copies of the last one fill the places, and nobody hears of them.
    """
    devices = local(num_devices)
    crowd = -(-count // len(devices))
    devices = devices[: -(-count // crowd)]
    places = crowd * len(devices)
    axes = members.axes(state, shared)
    mesh = Mesh(np.asarray(devices), (MEMBERS,))
    everywhere, apart = PartitionSpec(), PartitionSpec(MEMBERS)
    specs = members.over(axes, lambda axis, _: everywhere if axis is None else apart, state)
    replicated = NamedSharding(mesh, everywhere)

    def compile_dispatch(dispatch: Callable) -> Callable:
        mapped_over_devices = jax.shard_map(
            dispatch,
            mesh=mesh,
            in_specs=(specs, apart, everywhere, PartitionSpec(None, MEMBERS)),
            out_specs=(specs, apart),
            check_vma=False,
        )
        return jax.jit(mapped_over_devices, donate_argnums=donated(devices))

    def join(trees: Sequence[PyTree]) -> PyTree:
        trees = jax.device_get(list(trees))
        trees += [trees[-1]] * (places - count)
        if not isinstance(trees[0], State):
            return jax.device_put(np.stack(trees), NamedSharding(mesh, apart))
        shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
        return jax.device_put(members.stack(axes, trees), shardings)

    def part(tree: PyTree) -> Parts:
        # Copies, taken at once: the next dispatch may reuse the arrays while the parts are being looked at.
        host = jax.tree.map(np.array, jax.device_get(tree))
        if isinstance(tree, State):
            place = lambda state: jax.device_put(state, replicated)  # noqa: E731
            return Parts(count, lambda number: members.member(axes, host, number), place)
        return Parts(count, lambda number: members.take(host, number))

    def place(inputs: PyTree) -> PyTree:
        def lay(leaf: np.ndarray) -> jax.Array:
            copies = np.repeat(leaf[:, -1:], places - count, axis=1)
            return jax.device_put(
                np.concatenate([leaf, copies], axis=1), NamedSharding(mesh, PartitionSpec(None, MEMBERS))
            )

        return jax.tree.map(lay, inputs)

    return Driver(
        devices=devices,
        axis=None,
        compile=compile_dispatch,
        place=place,
        replicated=replicated,
        split=NamedSharding(mesh, apart),
        lay=lambda state: replicated,
        feed=together,
        join=join,
        part=part,
        lift=members.lift(axes, mapped),
        crowd=crowd,
    )
