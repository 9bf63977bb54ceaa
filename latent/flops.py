"""Floating-point operations of a training step, and the rate at which a device can do them at best.

The count is XLA's cost analysis of the program before it is optimised, so that it belongs to the step and not to what a
compiler makes of it on one device. Where blocks are rematerialised it holds their second computation too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

PEAKS = {
    # NVIDIA data sheets, dense: half of what is printed "with sparsity". Float32 is TF32, in which XLA multiplies
    # float32 matrices by default.
    "NVIDIA A100": {"float32": 156e12, "bf16": 312e12},
    "NVIDIA H100 80GB HBM3": {"float32": 494e12, "bf16": 989e12},  # the SXM module
    "NVIDIA H100 PCIe": {"float32": 378e12, "bf16": 756e12},
    "NVIDIA H200": {"float32": 494e12, "bf16": 989e12},
    # cloud.google.com/tpu/docs, "peak compute per chip (bf16)". XLA multiplies float32 in one pass of bfloat16 by
    # default. "lite" is the e of v5e and v6e.
    "TPU v4": {"float32": 275e12, "bf16": 275e12},
    "TPU v5 lite": {"float32": 197e12, "bf16": 197e12},
    "TPU v5": {"float32": 459e12, "bf16": 459e12},
    "TPU v6 lite": {"float32": 918e12, "bf16": 918e12},
}
"""Operations a second of one device at best, by the beginning of its `device_kind` (the longest counts) and
`train.precision`. A device that is not here, such as any CPU, has no known peak."""


def peak(device_kind: str, precision: str) -> float | None:
    """The best rate of one device, operations a second; None where it is not known."""
    found = [name for name in PEAKS if device_kind.startswith(name)]
    return PEAKS[max(found, key=len)].get(precision) if found else None


def of_step(program: ClosedJaxpr, cycle: int) -> float | None:
    """Operations of one step, a mean over those of a `program` of `cycle` steps; None where XLA counts none."""
    try:
        counted = of_program(program)
    except (NotImplementedError, RuntimeError):  # a backend without a cost analysis must not stop a run
        return None
    return counted / cycle if counted > 0 else None


def of_program(program: ClosedJaxpr) -> float:
    """Operations of a program, the bodies of its loops of known length as often as they run."""
    return _once(program) + _repeated(program.jaxpr)


def _repeated(jaxpr: Any) -> float:
    """Operations that XLA's count leaves out: it counts the body of a loop once, however often it runs."""
    total = 0.0
    for loop in _loops(jaxpr):
        body, length, unroll = loop.params["jaxpr"], loop.params["length"], int(loop.params["unroll"])
        seen = length if unroll >= length else unroll + length % unroll
        total += length * _repeated(body.jaxpr) + ((length - seen) * _once(body) if length > seen else 0.0)
    return total


def _once(program: ClosedJaxpr) -> float:
    shapes = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in program.in_avals]
    cost = jax.jit(jaxpr_as_fun(program)).lower(*shapes).cost_analysis() or {}
    return max(cost.get("flops", 0.0), 0.0)


def _loops(jaxpr: Any) -> Iterator[Any]:
    """The scans of a program that stand in no other scan and compute more than integers: random bits and searches are
    loops too, each of which would take a lowering of its own to count."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            if any(jnp.issubdtype(out.aval.dtype, jnp.inexact) for out in equation.outvars):
                yield equation
            continue
        for value in jax.tree.leaves(tuple(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _loops(inner)
