"""Floating-point operations of a training step, and the rate at which a device can do them at best.

Counted are the multiplications and additions of matrix products and convolutions, nearly all of what a net computes, as
for the utilisation of a device (MFU: Chowdhery et al. 2022, arXiv 2204.02311, appendix B). Unlike there, what is
rematerialised counts twice. The count belongs to the step, not to what a compiler makes of it on one device.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr

from latent import loops
from latent.nets import conv_primitives

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
    """Operations of one step, a mean over those of a `program` of `cycle` steps; None where it multiplies nothing."""
    return of_program(program) / cycle or None


def of_program(program: ClosedJaxpr) -> float:
    """Operations of a program: bodies of loops as often as they run, of those of unknown length once, of branches the
    largest."""
    return sum(map(_of_equation, program.jaxpr.eqns), 0.0)


def _of_equation(equation: Any) -> float:
    if equation.primitive.name == "dot_general":
        return 2.0 * _size(equation.outvars[0]) * _contracted(equation)
    if equation.primitive.name == "conv_general_dilated":
        return 2.0 * _of_convolution(equation)
    if equation.primitive in conv_primitives.PRIMITIVES:
        return 2.0 * _of_ours(equation)
    inner = [sum(map(_of_equation, program.eqns), 0.0) for program in loops.inside(equation)]
    if equation.primitive.name == "cond":
        return max(inner)
    return sum(inner, 0.0) * equation.params.get("length", 1)  # of a scan


def _size(variable: Any) -> int:
    return math.prod(variable.aval.shape)


def _contracted(product: Any) -> int:
    """How many multiplications make one number of a product."""
    (axes, _), _ = product.params["dimension_numbers"]
    return math.prod(product.invars[0].aval.shape[axis] for axis in axes)


def _of_convolution(equation: Any) -> int:
    """Multiplications with pixels that are there: zeros around and between them are none."""
    (image, kernel), out, options = equation.invars, equation.outvars[0].aval, equation.params
    (_, _, *rows), (_, in_features, *offsets), (batch, features, *coarse) = options["dimension_numbers"]
    pairs = [
        _pairs(out.shape[c], kernel.aval.shape[o], image.aval.shape[r], stride, low, spread, reach)
        for c, o, r, stride, (low, _), spread, reach in zip(
            coarse,
            offsets,
            rows,
            options["window_strides"],
            options["padding"],
            options["lhs_dilation"],
            options["rhs_dilation"],
            strict=True,
        )
    ]
    return out.shape[batch] * out.shape[features] * kernel.aval.shape[in_features] * math.prod(pairs)


def _of_ours(equation: Any) -> int:
    """The same of latent/nets/conv_primitives.py, whose three are one trilinear form."""
    kernel = equation.outvars[0] if equation.primitive is conv_primitives.correlation_p else equation.invars[1]
    batch, geometry = equation.invars[0].aval.shape[0], equation.params["geometry"]
    pairs = [
        _pairs(coarse, offsets, size, stride, low)
        for stride, (low, _), size, offsets, coarse in zip(*geometry, strict=True)
    ]
    return batch * math.prod(kernel.aval.shape[2:]) * math.prod(pairs)


def _pairs(coarse: int, offsets: int, size: int, stride: int, low: int, spread: int = 1, reach: int = 1) -> int:
    """How often an offset of the kernel meets a pixel, along one axis of an image of `size` pixels, `spread` apart."""
    place = np.arange(coarse)[:, None] * stride + np.arange(offsets) * reach - low
    return int(np.sum((place >= 0) & (place <= (size - 1) * spread) & (place % spread == 0)))
