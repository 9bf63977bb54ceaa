"""Floating-point operations of a training step, and the rate at which a device can do them at best.

Counted are the multiplications and additions of matrix products and convolutions, as the field does for the utilisation
of a device (MFU: Chowdhery et al. 2022, arXiv 2204.02311, appendix B): they are nearly all of what a net computes, and
the rest runs on other units. The count belongs to the step, not to what a compiler makes of it on one device. Where
blocks are rematerialised it holds their second computation too.
"""

from __future__ import annotations

import math
from typing import Any

from jax.extend.core import ClosedJaxpr

from latent import loops
from latent.nets import conv

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
        return 2.0 * _size(equation.outvars[0]) * _window(equation)
    if equation.primitive in conv.PRIMITIVES:
        return 2.0 * _trilinear(equation)
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


def _window(convolution: Any) -> float:
    """How many multiplications make one number of a convolution, borders aside; zeros put between pixels are none."""
    kernel, out_features = convolution.invars[1], convolution.params["dimension_numbers"].rhs_spec[0]
    window = _size(kernel) / kernel.aval.shape[out_features]
    return window / math.prod(convolution.params["lhs_dilation"])


def _trilinear(convolution: Any) -> int:
    """Multiplications of one of ours, all three the same: each weight meets each pixel of the coarse image."""
    kernel = convolution.outvars[0] if convolution.primitive is conv.correlation_p else convolution.invars[1]
    batch, geometry = convolution.invars[0].aval.shape[0], convolution.params["geometry"]
    return batch * math.prod(geometry.coarse) * _size(kernel)
