"""Several processes that train one run together, usually one for each host or each device of a cluster.

All of them run the same program in the same order; each holds the devices of its own, reads the examples of these, and
evaluates its part of a split. Process 0 leads: it alone writes, except for checkpoints, which every process writes its
part of. Here is what they tell each other, and the way of an array between the devices of all and those of one.
A process that is alone says nothing, and every function here is then the identity or nearly so.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import itertools
import json
import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import PyTree, Shaped
from orbax.checkpoint import multihost

from latent.errors import UserError

AXIS = "data"
LAG = 1
"""Dispatches between a vote and its count: nobody waits for the device while it has nothing else to do."""
NEVER = 10**6
"""Seconds. JAX ends a process whose time to join is up by an abort with a stack trace; we keep the time ourselves."""
_meetings = itertools.count()
OWN = ("data.dir", "data.workers")
"""Config keys in which processes may differ: where a host has its data, and how many threads it reads them with."""


class Told(UserError):
    """A `UserError` that every process raises at the same moment, so that nobody needs to be told of it."""


# Joining -------------------------------------------------------------------------------------------------------


def join(coordinator: str | None, num_processes: int | None, process_id: int | None, seconds: float) -> None:
    """Joins the other processes, before anything else is done with JAX.

    What is None comes from the environment of SLURM, a TPU pod, Kubernetes or Open MPI (JAX's own detection). Raises
    UserError for what does not fit together, and where not all have joined within `seconds`.
    """
    _check_flags(coordinator, num_processes, process_id, seconds)
    complete = None not in (coordinator, num_processes, process_id)
    raised: list[BaseException] = []

    def connect() -> None:
        try:
            jax.distributed.initialize(
                coordinator,
                num_processes,
                process_id,
                cluster_detection_method="deactivate" if complete else None,
                initialization_timeout=NEVER,
            )
        except BaseException as error:
            raised.append(error)

    joining = threading.Thread(target=connect, daemon=True)
    joining.start()
    joining.join(seconds)
    if joining.is_alive():
        atexit.register(_leave)
        who = "all processes of this job" if num_processes is None else f"{num_processes} processes"
        where = "" if coordinator is None else f" at --coordinator={coordinator}"
        raise UserError(
            f"not {who} have joined{where} within --join_seconds={seconds:g}; look for one that did not start."
        )
    if raised:
        raise UserError(f"the processes cannot join: {_first_line(raised[0])} Allowed: a job of SLURM, a TPU pod, "
                        "Kubernetes or Open MPI, or --coordinator, --num_processes and --process_id.")  # fmt: skip
    # JAX listens to SIGTERM from C++, which Python does not know; the default, or what a loop does with it, is back.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def _check_flags(coordinator: str | None, num_processes: int | None, process_id: int | None, seconds: float) -> None:
    if coordinator is not None and not coordinator.rpartition(":")[2].isdigit():
        raise UserError(f"--coordinator={coordinator} must be HOST:PORT, an address of process 0.")
    if num_processes is not None and num_processes < 1:
        raise UserError(f"--num_processes={num_processes} must be at least 1.")
    if process_id is not None and not 0 <= process_id < (num_processes or process_id + 1):
        raise UserError(f"--process_id={process_id} must lie in [0, --num_processes={num_processes}).")
    if seconds <= 0:
        raise UserError(f"--join_seconds={seconds:g} must be positive.")


def _leave() -> None:
    """Ends the process before the service that still waits for others is taken down, which it reports at length."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(2)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def alone() -> bool:
    """Whether this process trains by itself."""
    return jax.process_count() == 1


def leads() -> bool:
    """Whether this process writes what is written once."""
    return jax.process_index() == 0


# What they tell each other -------------------------------------------------------------------------------------


def meet() -> None:
    """Waits until every process has come this far, however long one of them compiles, draws or reads.

    Collectives do not: on CPU they give up after half a minute. What may take one process longer ends with a meeting.
    """
    if not alone():
        everybody = set(range(jax.process_count()))
        multihost.sync_global_processes(f"latent {next(_meetings)}", timeout=NEVER, processes=everybody)


@contextlib.contextmanager
def united() -> Iterator[None]:
    """What runs inside succeeds in every process or raises UserError in each: none is left waiting for the others.

    Inside, the processes may call `same` and `require_shared` and nothing else that needs all of them.
    """
    try:
        yield
    except Told:
        raise
    except Exception as error:
        if not alone():
            with contextlib.suppress(Told):
                _exchange(None, str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
        raise
    if not alone():
        _exchange(None)


def same(values: Mapping[str, Any], allowed: Sequence[str] = OWN) -> None:
    """Raises UserError in every process, with the differing keys, where their values {key: JSON value} differ."""
    if alone():
        return
    every = _exchange({key: value for key, value in values.items() if key not in allowed})
    differing = []
    for key in sorted(set().union(*every)):
        other = next((number for number, each in enumerate(every) if each.get(key) != every[0].get(key)), None)
        if other is not None:
            differing.append(f"{key}: {every[0].get(key)!r} on process 0, {every[other].get(key)!r} on process {other}")
    if differing:
        raise Told("the processes were not given the same run; these keys differ: " + "; ".join(differing) + ".")


def require_shared(directory: Path) -> None:
    """Raises UserError in every process where `directory`, which is there, is not the same one for all."""
    if alone():
        return
    mark = directory / (".shared." + _exchange(secrets.token_hex(8))[0])
    try:
        if leads():
            mark.touch()
        _exchange(None)
        seen = _exchange(mark.exists())
    finally:
        if leads():
            mark.unlink(missing_ok=True)
    if not all(seen):
        raise Told(f"--workdir={directory} is another directory for process {seen.index(False)} than for process 0: "
                   "it must lie on a file system that all of them share.")  # fmt: skip


def leading(value: Any) -> Any:
    """The value, which JSON can hold, that process 0 has."""
    return value if alone() else _exchange(value if leads() else None)[0]


def everyone(fact: bool) -> bool:
    """Whether something is so in every process."""
    return fact if alone() else all(_exchange(fact))


def _exchange(value: Any, error: str = "") -> list[Any]:
    """The values of all processes. Raises Told where one of them has an error instead."""
    meet()
    text = np.frombuffer(json.dumps([error, value]).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32([len(text)]), tiled=True)
    room = 1 << int(sizes.max() - 1).bit_length()  # few lengths, few programs
    texts = multihost_utils.process_allgather(np.pad(text, (0, room - len(text))))
    told = [json.loads(row[:size].tobytes()) for row, size in zip(texts, sizes, strict=True)]
    for number, (failure, _) in enumerate(told):
        if failure:
            raise Told(f"process {number}: {failure}")
    return [found for _, found in told]


class Vote:
    """Which signal stops the processes: the loop of each says what it has heard, and all stop after the same step."""

    def __init__(self) -> None:
        self._everywhere = Mesh(np.asarray(devices()), (AXIS,))
        self._largest = jax.jit(jnp.max, out_shardings=NamedSharding(self._everywhere, PartitionSpec()))
        self._cast: collections.deque[jax.Array] = collections.deque()

    def __call__(self, heard: signal.Signals | None) -> signal.Signals | None:
        """The signal to stop for, None to go on. Where several processes vote, that is known `LAG` calls later."""
        if alone():
            return heard
        mine = np.full(jax.local_device_count(), heard or 0, np.int32)
        ballots = NamedSharding(self._everywhere, PartitionSpec(AXIS))
        self._cast.append(self._largest(jax.make_array_from_process_local_data(ballots, mine)))
        if len(self._cast) <= LAG:
            return None
        found = int(self._cast.popleft())
        return signal.Signals(found) if found else None


# Shares of a batch and of a split ------------------------------------------------------------------------------


def devices() -> tuple[Any, ...]:
    """The devices of all processes, those of a process side by side, so that each has one piece of a batch."""
    return tuple(sorted(jax.devices(), key=lambda device: (device.process_index, device.id)))


def own_rows(batch_size: int) -> slice:
    """The places of a global batch that lie on the devices of this process."""
    owners = [device.process_index for device in devices()]
    first, count = owners.index(jax.process_index()), owners.count(jax.process_index())
    return slice(batch_size * first // len(owners), batch_size * (first + count) // len(owners))


def share(count: int) -> range:
    """The part of range(count) that this process evaluates. All parts are equally long, so the last ones may reach
    beyond `count`."""
    length = -(-count // jax.process_count())
    return range(jax.process_index() * length, (jax.process_index() + 1) * length)


def joined(tree: PyTree, count: int) -> PyTree:
    """The arrays [count, ...] of which every process has computed the rows of its `share`, on every host."""
    if alone():
        return tree
    meet()
    return jax.tree.map(lambda leaf: leaf[:count], multihost_utils.process_allgather(tree, tiled=True))


# Arrays on the devices of all and of one -----------------------------------------------------------------------


def put(tree: PyTree, sharding: Any) -> PyTree:
    """Host arrays that all processes have, laid out on one sharding or a tree of them; no host sends another any."""
    if alone():
        return jax.device_put(tree, sharding)

    def lay(place: Sharding, part: PyTree) -> PyTree:
        one = lambda x: jax.make_array_from_callback(np.shape(x), place, np.asarray(x).__getitem__)  # noqa: E731
        return jax.tree.map(one, part)

    return jax.tree.map(lay, sharding, tree)


def fetch(array: Any) -> Shaped[np.ndarray, "..."]:
    """The whole array on the host. Where it is split over hosts, all of them must ask at once."""
    if isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated):
        return multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)


def near(tree: PyTree) -> PyTree:
    """Arrays on the devices of all processes -> the same on those of this one, whole: what it can compute with alone.

    Nothing moves where every device has a copy. Arrays that are split over the devices are gathered, one at a time,
    and split in the same way over the devices of this process; all must ask for that at once.
    """

    def lay(array: Any) -> Any:
        if not isinstance(array, jax.Array) or array.is_fully_addressable:
            return array
        spec, mesh = array.sharding.spec, array.sharding.mesh.local_mesh
        if array.is_fully_replicated:
            return _assembled(array, NamedSharding(mesh, PartitionSpec()))
        return jax.device_put(fetch(array), NamedSharding(mesh, spec))

    return jax.tree.map(lay, tree)


def far(tree: PyTree) -> PyTree:
    """The way back, for arrays of which all devices have copies: what checkpoints are made of. Nothing moves."""
    everywhere = NamedSharding(Mesh(np.asarray(devices()), (AXIS,)), PartitionSpec())
    lay = lambda array: _assembled(array, everywhere) if isinstance(array, jax.Array) else array  # noqa: E731
    return tree if alone() else jax.tree.map(lay, tree)


def _assembled(array: jax.Array, replicated: NamedSharding) -> jax.Array:
    copies = [shard.data for shard in array.addressable_shards]
    return jax.make_array_from_single_device_arrays(array.shape, replicated, copies)
