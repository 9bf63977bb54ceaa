"""The trilinear form that every convolution is, as three primitives closed under differentiation, for XLA:CPU.

A convolution is one trilinear form in an image x, a kernel k and a coarse image y,

    sum over b, i, u, c, o of   x[b, stride * i + u - low, c] * k[u, c, o] * y[b, i, o]

(i and u run over both image axes). Its gradient with respect to y is the strided convolution of x and k, to x the
transposed convolution of y and k, to k the correlation of x and y. The derivatives of each of the three are the
other two, so three primitives, each lowered to its fastest form, are closed under differentiation of every order
and in both modes, which `jax.custom_vjp` (reverse only) would not give.

What is slow in lax is the kernel gradient that autodiff derives for a dilated image: a convolution both dilated and
reversed, which misses XLA's fast kernels. Here it is matrix products: with stride 1 one, of one image shifted by the
kernel's columns and the other by its rows; with a stride one for each kernel offset; or one with patches of an image of
few channels. As a convolution it took 0.9 to 7 times as long over 12 sizes of at most 25 kernel offsets as with a
product for each offset (no AVX-512), and that took 1.06 to 2.1 times as long over 16 sizes of 3x3 and 5x5 with stride 1
and 6 to 512 channels as one product does (128x8x8x64, 3x3, 64 channels: 5.6 against 3.2 ms, AVX-512). A 7x7 kernel took
41 ms as a convolution and takes 27 (64x16x16x64), an 8x8 one took 2.5 and takes as long (32x8x8x32).

A transposed convolution with a stride is one product and additions, with stride 2 0.5 to 1.1 times as long over 7 sizes
as a convolution for each of its phases; the product is as large as the fine image times offsets by pixels of the
stride.

The primitives work under jit, vmap, pmap, remat and automatic sharding, not on meshes with explicit axis types.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from latent.nets.layers import last_axis, wide

DIMENSIONS = ("NHWC", "HWIO", "NHWC")

FEW_CHANNELS = 4
"""With so few channels of the fine image its transposed convolution is one product with stride 1 too, and an addition
per kernel offset: 128x28x28x1, 3x3, 64 channels: 6 ms against 52 (with 32 channels 4 against 19); 64x32x32x3, 3x3, 64
channels: 8 against 29. Other work ran beside these, which are of a form before this one: alone this one takes 5.7 and
5.3 ms with 64 channels."""

PATCHES = (8, 16, 16)
"""With at most so many channels of the fine image and kernel offsets, and at least so many of the coarse image, the
kernel gradient is one product with patches (im2col). Milliseconds, 2 cores with AVX-512, against the form it would
have otherwise: 64x32x32x3, 3x3, 64 channels: 2.0 against 8.5; 128x28x28x1, 3x3, 32 channels: 0.6 against 5.1; without
AVX-512 16x64x64x3, 4x4, stride 2: 3.6 against 4.1."""

UNROLLED_MEMBERS = 16
"""`vmap` over kernels: up to so many members are computed one by one, because XLA:CPU is slow in the grouped
convolutions that it makes of them (4 members of the VAE of the table in conv.py with batch 32: 14 ms against 64,
AVX-512; there kernel gradients and transposed convolutions were grouped ones too, which as products they are not)."""


class Geometry(NamedTuple):
    """The integers of the trilinear form, per image axis: x has `image` pixels, k has `kernel`, y has `coarse`."""

    stride: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    image: tuple[int, int]
    kernel: tuple[int, int]
    coarse: tuple[int, int]


def _strided(
    x: Float[Array, "B H W I"], kernel: Float[Array, "kh kw I O"], *, geometry: Geometry
) -> Float[Array, "B h w O"]:
    """The gradient to y: an ordinary convolution."""
    return lax.conv_general_dilated(x, kernel, geometry.stride, geometry.padding, dimension_numbers=DIMENSIONS)


def _transposed(
    y: Float[Array, "B h w O"], kernel: Float[Array, "kh kw I O"], *, geometry: Geometry
) -> Float[Array, "B H W I"]:
    """The gradient to x: with stride 1 an ordinary convolution with the flipped kernel. Else one product gives what
    each pixel of y adds at each kernel offset; these are summed phase by phase, and the phases interleaved."""
    (rows, columns), (height, width), channels = geometry.stride, geometry.image, kernel.shape[2]
    if geometry.stride == (1, 1) and channels > FEW_CHANNELS:
        padding = [
            (length - 1 - low, size + low - coarse) for _, (low, _), size, length, coarse in zip(*geometry, strict=True)
        ]
        flipped = kernel[::-1, ::-1].swapaxes(2, 3)
        return lax.conv_general_dilated(y, flipped, (1, 1), padding, dimension_numbers=DIMENSIONS)
    added = wide(last_axis(y, kernel.transpose(3, 0, 1, 2).reshape(y.shape[3], -1)))
    added = added.reshape(*y.shape[:3], *geometry.kernel, channels)
    stripes = [
        jnp.stack([_phase(added, geometry, (row, column)) for column in range(columns)], 3) for row in range(rows)
    ]
    x = jnp.stack(stripes, 2).astype(y.dtype)
    return x.reshape(y.shape[0], rows * x.shape[1], columns * x.shape[3], channels)[:, :height, :width]


def _phase(
    added: Float[Array, "B h w kh kw I"], geometry: Geometry, residues: tuple[int, int]
) -> Float[Array, "B _h _w I"]:
    """The pixels stride * t + residue: kernel offset u, where it reaches them, adds what pixel
    t + (residue + low - u) / stride of y gives."""
    sizes = [-(-size // stride) for size, stride in zip(geometry.image, geometry.stride, strict=True)]
    total = jnp.zeros((added.shape[0], *sizes, added.shape[-1]), added.dtype)
    for offsets in np.ndindex(*geometry.kernel):
        shifts = [
            divmod(residue + low - offset, stride)
            for residue, (low, _), offset, stride in zip(
                residues, geometry.padding, offsets, geometry.stride, strict=True
            )
        ]
        if not any(rest for _, rest in shifts):
            sides = [
                (-shift, size + shift - coarse, 0)
                for (shift, _), size, coarse in zip(shifts, sizes, geometry.coarse, strict=True)
            ]
            zero = jnp.zeros((), added.dtype)
            total += lax.pad(added[:, :, :, offsets[0], offsets[1]], zero, [(0, 0, 0), *sides, (0, 0, 0)])
    return total


def _correlation(
    x: Float[Array, "B H W I"], y: Float[Array, "B h w O"], *, geometry: Geometry
) -> Float[Array, "kh kw I O"]:
    """The gradient to k: products of what y's pixels see of x at the kernel's offsets and y."""
    offsets, channels, coarse_channels = math.prod(geometry.kernel), x.shape[3], y.shape[3]
    patches = channels <= PATCHES[0] and offsets <= PATCHES[1] and coarse_channels >= PATCHES[2]
    if geometry.stride == (1, 1) and not patches:
        return _correlation_in_one_product(x, y, geometry)
    views = _views(x, geometry)
    if patches:
        views, channels = [jnp.concatenate(views, axis=-1)], channels * offsets
    # Flat, since XLA:CPU is slower in products that sum over several axes (128x28x28x32 -> 32: 128 ms against 463).
    flat = y.reshape(-1, coarse_channels)
    products = [view.reshape(-1, channels).T @ flat for view in views]
    return jnp.stack(products).reshape(*geometry.kernel, x.shape[3], coarse_channels)


def _correlation_in_one_product(
    x: Float[Array, "B H W I"], y: Float[Array, "B h w O"], geometry: Geometry
) -> Float[Array, "kh kw I O"]:
    """With stride 1 the kernel's columns shift x and its rows shift y: one product gives all offsets, from kw copies
    of x and kh of y, where a product for each offset needs kh * kw of x."""
    (rows, columns), (top, left) = geometry.kernel, (low for low, _ in geometry.padding)
    by_column = [_shifted(x, 2, column - left, geometry.coarse[1]) for column in range(columns)]
    by_row = [_shifted(y, 1, top - row, geometry.image[0]) for row in range(rows)]
    first, second = (jnp.concatenate(copies, axis=-1) for copies in (by_column, by_row))
    product = first.reshape(-1, first.shape[3]).T @ second.reshape(-1, second.shape[3])
    return product.reshape(columns, x.shape[3], rows, y.shape[3]).transpose(2, 0, 1, 3)


def _shifted(x: Float[Array, "B h w C"], axis: int, by: int, size: int) -> Float[Array, "B H W C"]:
    """The pixels from `by` on along an axis, `size` of them; zeros where there are none."""
    sides = [(0, 0, 0)] * x.ndim
    sides[axis] = (-by, by + size - x.shape[axis], 0)
    return lax.pad(x, jnp.zeros((), x.dtype), sides)


def _views(x: Float[Array, "B H W I"], geometry: Geometry) -> list[Float[Array, "B h w I"]]:
    """What the pixels of y see of x at each kernel offset."""
    (rows, columns), (height, width) = geometry.stride, geometry.coarse
    x = resize(x, geometry.padding)
    return [
        x[:, row : row + rows * (height - 1) + 1 : rows, column : column + columns * (width - 1) + 1 : columns]
        for row, column in np.ndindex(*geometry.kernel)
    ]


def resize(x: Float[Array, "B h w C"], pads: Any, stride: tuple[int, int] = (1, 1)) -> Float[Array, "B H W C"]:
    """Zeros around the image (or crops) and `stride - 1` zeros between its pixels."""
    sides = [(low, high, step - 1) for (low, high), step in zip(pads, stride, strict=True)]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *sides, (0, 0, 0)])


def _primitive(
    name: str, evaluate: Callable[..., Array], shape: Callable[..., tuple[int, ...]], images: int
) -> Primitive:
    """A JAX primitive that is lowered to `evaluate`; of its two arguments the first `images` have a batch axis,
    and with one such argument the result has one as well."""
    primitive = Primitive(name)
    primitive.def_impl(jax.jit(evaluate, static_argnames="geometry"))
    primitive.def_abstract_eval(
        lambda first, second, *, geometry: ShapedArray(shape(first, second, geometry), first.dtype)
    )
    mlir.register_lowering(primitive, mlir.lower_fun(evaluate, multiple_results=False))

    def batched(arrays: Sequence[Array], axes: Sequence[int | None], *, geometry: Geometry) -> tuple[Array, int]:
        first, second = (
            array if axis is None else jnp.moveaxis(array, axis, 0) for array, axis in zip(arrays, axes, strict=True)
        )
        if images == 1 and axes[1] is None:  # examples only: one larger batch
            out = primitive.bind(first.reshape(-1, *first.shape[2:]), second, geometry=geometry)
            return out.reshape(*first.shape[:2], *out.shape[1:]), 0
        axes = tuple(None if axis is None else 0 for axis in axes)
        members = first.shape[0] if axes[0] == 0 else second.shape[0]
        if members > UNROLLED_MEMBERS:
            return jax.vmap(partial(evaluate, geometry=geometry), in_axes=axes)(first, second), 0
        each = [
            primitive.bind(
                first if axes[0] is None else first[i], second if axes[1] is None else second[i], geometry=geometry
            )
            for i in range(members)
        ]
        return jnp.stack(each), 0

    batching.primitive_batchers[primitive] = batched
    return primitive


strided_p = _primitive("strided_convolution", _strided, lambda x, k, g: (x.shape[0], *g.coarse, k.shape[3]), images=1)
transposed_p = _primitive(
    "transposed_convolution", _transposed, lambda y, k, g: (y.shape[0], *g.image, k.shape[2]), images=1
)
correlation_p = _primitive(
    "kernel_correlation", _correlation, lambda x, y, g: (*g.kernel, x.shape[3], y.shape[3]), images=2
)
PRIMITIVES = (strided_p, transposed_p, correlation_p)
# Each rule: the cotangent and the argument that stays, given to the primitive that makes the other one.
ad.defbilinear(
    strided_p,
    lambda ct, x, k, *, geometry: transposed_p.bind(ct, k, geometry=geometry),
    lambda ct, x, k, *, geometry: correlation_p.bind(x, ct, geometry=geometry),
)
ad.defbilinear(
    transposed_p,
    lambda ct, y, k, *, geometry: strided_p.bind(ct, k, geometry=geometry),
    lambda ct, y, k, *, geometry: correlation_p.bind(ct, y, geometry=geometry),
)
ad.defbilinear(
    correlation_p,
    lambda ct, x, y, *, geometry: transposed_p.bind(y, ct, geometry=geometry),
    lambda ct, x, y, *, geometry: strided_p.bind(x, ct, geometry=geometry),
)
