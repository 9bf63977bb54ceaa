"""How much memory there is, and how much a compiled program takes."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree

SHARE = 0.8
"""Of the free memory, that may be planned with: the rest is for evaluation, pictures and what is not foreseen."""

CGROUP = Path("/sys/fs/cgroup")


def size(tree: PyTree) -> int:
    """Bytes of a tree of arrays, or of their shapes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def needed(analysis: Any) -> int:
    """Bytes that a compiled program takes on one device: arguments, results that share no memory with them, and
    temporaries."""
    own_results = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return analysis.argument_size_in_bytes + own_results + analysis.temp_size_in_bytes


def budget(devices: tuple[Any, ...]) -> int:
    """Bytes that may be planned with on each of the devices, which share the host's memory where they are its cores."""
    statistics = devices[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return int(SHARE * (statistics["bytes_limit"] - statistics["bytes_in_use"]))
    return int(SHARE * _free_on_the_host() / len(devices))


def _free_on_the_host() -> int:
    """Free memory, or what a container leaves of it."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    try:
        limit, used = ((CGROUP / f"memory.{name}").read_text() for name in ("max", "current"))
        return min(free, int(limit) - int(used))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return free
