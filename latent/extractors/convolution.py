"""Convolution, pooling and folded normalisation as networks trained elsewhere define them."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def convolved(
    x: Float[Array, "B H W i"],
    kernel: Float[Array, "_h _w _j o"],
    stride: int,
    padding: str | Sequence[tuple[int, int]],
    groups: int = 1,
) -> Float[Array, "B _y _x o"]:
    """A convolution in full float32 on every backend: a published number must not depend on the device."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=jax.lax.Precision.HIGHEST,
    )


def pooled(x: Float[Array, "B H W c"], side: int, stride: int, padding: int = 0) -> Float[Array, "B _y _x c"]:
    """Maxima over windows; what pads never is one."""
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, side, side, 1), (1, stride, stride, 1), around)


def averaged(x: Float[Array, "B H W c"], side: int, padding: int) -> Float[Array, "B _y _x c"]:
    """Means over windows, stride 1; what pads does not count."""
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    window, strides = (1, side, side, 1), (1, 1, 1, 1)
    total = jax.lax.reduce_window(x, 0.0, jax.lax.add, window, strides, around)
    counts = jax.lax.reduce_window(
        np.ones((1, *x.shape[1:3], 1), np.float32), 0.0, jax.lax.add, window, strides, around
    )
    return total / counts


def folded(
    kernel: Float[np.ndarray, "o i h w"],
    scale: Float[np.ndarray, "o"] | None,
    offset: Float[np.ndarray, "o"],
    mean: Float[np.ndarray, "o"],
    variance: Float[np.ndarray, "o"],
    epsilon: float,
) -> tuple[Float[np.ndarray, "h w i o"], Float[np.ndarray, "o"]]:
    """A convolution of PyTorch's layout and the batch normalisation after it as one kernel and bias, by float64."""
    factor = (1.0 if scale is None else np.float64(scale)) / np.sqrt(np.float64(variance) + epsilon)
    together = np.float64(kernel).transpose(2, 3, 1, 0) * factor
    return np.float32(together), np.float32(offset - mean * factor)
