"""The one convolution and the one transposed convolution of the project, and the one of an upsampled image: NHWC
images, HWIO kernels.

`Conv` and `ConvTranspose` have the parameters and the values of flax's layers of the same names. On GPU and TPU
they are `lax.conv_general_dilated` and `lax.conv_transpose`, nothing else. XLA:CPU is up to 9 times slower than
need be in some of what autodiff makes of these two, so there the same functions take other, equal forms
(conv_primitives.py). This file owns that choice; it must not know of losses, activations or norms.

Forward and gradient on 2 cores of an AMD EPYC (no AVX-512), JAX 0.10.2, float32, medians of interleaved runs,
milliseconds:

                                                                                      lax   here
    transposed, 16x7x7x128 -> 64, 4x4, stride 2                                        69    8.7
    transposed, 64x16x16x64 -> 64, 3x3, stride 2                                      763     83
    step of a VAE: 28x28x1, batch 128, 32 and 64 channels, 4x4, stride 2, mirrored    191     84
    R1 penalty of a critic: 32x32x3, batch 64, 32, 64, 128 channels, 4x4, stride 2    151     42
    gradient through a gradient step of that VAE                                     1040    263
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import lax
from jaxtyping import Array, Float, Shaped

from latent.errors import UserError, unknown_name
from latent.nets.conv_primitives import DIMENSIONS, Geometry, resize, strided_p, transposed_p
from latent.nets.layers import Layer, last_axis, wide
from latent.nets.resampling import UP

Size = int | Sequence[int]
Padding = str | int | Sequence[int | Sequence[int]]


def conv(
    x: Shaped[Array, "*batch H W I"],
    kernel: Float[Array, "kh kw I O"],
    stride: Size = 1,
    padding: Padding = "SAME",
    *,
    backend: str | None = None,
) -> Float[Array, "*batch h w O"]:
    """Convolution (cross-correlation, as everywhere in deep learning), equal to `lax.conv_general_dilated`.

    padding: "SAME", "VALID", one integer, or per image axis an integer or (low, high). `backend` (default: JAX's)
    chooses the form at trace time: "cpu" that of conv_primitives.py, anything else lax's. Raises `UserError` for an
    unknown padding and for an image that is smaller than the kernel.
    """
    x, kernel = promote_dtype(x, kernel)
    stride, window = _pair(stride), kernel.shape[:2]
    padding = _canonical(padding)
    pads = padding
    if isinstance(padding, str):
        pads = tuple(lax.padtype_to_pads(x.shape[-3:-1], window, stride, padding))
    coarse = tuple(
        (size + low + high - length) // step + 1
        for step, (low, high), size, length in zip(stride, pads, x.shape[-3:-1], window, strict=True)
    )
    _require_pixels(coarse, x, kernel, padding)
    images = x.reshape(-1, *x.shape[-3:])
    if (backend or jax.default_backend()) != "cpu":
        y = lax.conv_general_dilated(images, kernel, stride, padding, dimension_numbers=DIMENSIONS)
    elif window == (1, 1):
        y = last_axis(resize(images, pads)[:, :: stride[0], :: stride[1]], kernel[0, 0])
    else:
        geometry = Geometry(stride, pads, images.shape[1:3], window, coarse)
        y = strided_p.bind(images, kernel, geometry=geometry)
    return y.reshape(*x.shape[:-3], *y.shape[1:])


def conv_transpose(
    x: Shaped[Array, "*batch h w I"],
    kernel: Float[Array, "kh kw I O"],
    stride: Size,
    padding: Padding = "SAME",
    *,
    backend: str | None = None,
) -> Float[Array, "*batch H W O"]:
    """Transposed convolution, equal to `lax.conv_transpose` (the kernel neither flipped nor transposed).

    padding as in `conv`; as in lax and flax, explicit numbers pad the dilated input, so that an image has
    stride * (h - 1) + 1 + low + high - kh + 1 rows afterwards. Raises `UserError` as `conv` does.
    """
    x, kernel = promote_dtype(x, kernel)
    stride, window, coarse = _pair(stride), kernel.shape[:2], x.shape[-3:-1]
    padding = _canonical(padding)
    pads = padding
    if isinstance(padding, str):
        pads = tuple(_transpose_pads(length, step, padding) for length, step in zip(window, stride, strict=True))
    image = tuple(
        step * (size - 1) + 1 + low + high - length + 1
        for step, (low, high), size, length in zip(stride, pads, coarse, window, strict=True)
    )
    _require_pixels(image, x, kernel, padding)
    images = x.reshape(-1, *x.shape[-3:])
    if (backend or jax.default_backend()) != "cpu":
        y = lax.conv_transpose(images, kernel, stride, padding, dimension_numbers=DIMENSIONS)
    elif window == (1, 1):
        y = resize(last_axis(images, kernel[0, 0]), pads, stride)
    else:
        # The gradient of the ordinary convolution with the flipped kernel, whose padding is the complement.
        complement = tuple(
            (length - 1 - low, length - 1 - high) for length, (low, high) in zip(window, pads, strict=True)
        )
        flipped = kernel[::-1, ::-1].swapaxes(2, 3)
        y = transposed_p.bind(images, flipped, geometry=Geometry(stride, complement, image, window, coarse))
    return y.reshape(*x.shape[:-3], *y.shape[1:])


def conv_of_upsampled(
    x: Shaped[Array, "*batch h w I"], kernel: Float[Array, "kh kw I O"], *, backend: str | None = None
) -> Float[Array, "*batch H W O"]:
    """`conv` with padding "SAME" of x upsampled to twice its sides by nearest neighbour, for a kernel with odd sides.

    Upsampling is a transposed convolution with ones, so that on CPU all of it is one transposed convolution with the
    kernel's sums over 2x2, without the large image: of a 3x3 kernel 16 multiplications a pixel and channel of x, not
    36. Forward and gradient on 2 cores (AVX-512), milliseconds, against the convolution of the upsampled image:
    128x4x4x128 -> 128: 8.5 against 25; 64x16x16x64 -> 64: 21 against 79. Raises ValueError for an even side.
    """
    if not all(length % 2 for length in kernel.shape[:2]):
        raise ValueError(f"conv_of_upsampled needs a kernel with odd sides, not {kernel.shape[:2]}.")
    if (backend or jax.default_backend()) != "cpu":
        upsampled = UP["nearest"](x.reshape(-1, *x.shape[-3:]))
        return conv(upsampled.reshape(*x.shape[:-3], *upsampled.shape[1:]), kernel, backend=backend)
    sides = [((i, 1 - i), (j, 1 - j), (0, 0), (0, 0)) for i in range(2) for j in range(2)]
    sums = sum(jnp.pad(wide(kernel), side) for side in sides).astype(kernel.dtype)
    rows, columns = ((length + 1) // 2 for length in kernel.shape[:2])
    return conv_transpose(x, sums, 2, (rows, columns), backend=backend)


def _pair(size: Size) -> tuple[int, int]:
    first, second = (size, size) if isinstance(size, int) else size
    return int(first), int(second)


def _canonical(padding: Padding) -> str | tuple[tuple[int, int], tuple[int, int]]:
    if isinstance(padding, str):
        if padding not in ("SAME", "VALID"):
            raise unknown_name("padding", padding, ("SAME", "VALID"))
        return padding
    first, second = (padding, padding) if isinstance(padding, int) else padding
    return _pair(first), _pair(second)


def _transpose_pads(length: int, stride: int, padding: str) -> tuple[int, int]:
    """What `lax.conv_transpose` means by "SAME" (the image grows by the stride) and "VALID", for one axis."""
    if padding == "VALID":
        return length - 1, stride - 1 + max(length - stride, 0)
    total = length + stride - 2
    low = length - 1 if stride > length - 1 else -(-total // 2)
    return low, total - low


def _require_pixels(pixels: tuple[int, ...], x: Array, kernel: Array, padding: Any) -> None:
    if min(pixels) < 1:
        raise UserError(
            f"An image of {x.shape[-3]}x{x.shape[-2]} pixels is too small for a {kernel.shape[0]}x{kernel.shape[1]} "
            f"convolution with padding={padding!r}: use larger images, fewer downsamplings or padding='SAME'."
        )


class _Convolution(Layer):
    """Kernel and bias, named and shaped as flax's; `padding` and `backend` as in `conv`."""

    features: int
    kernel_size: Size
    stride: Size = 1
    padding: Padding = "SAME"
    use_bias: bool = True
    kernel_init: Callable[..., Array] = nn.initializers.lecun_normal()
    bias_init: Callable[..., Array] = nn.initializers.zeros_init()
    backend: str | None = None

    def operation(self, x: Array, kernel: Array) -> Array:
        raise NotImplementedError

    @nn.compact
    def __call__(self, x: Shaped[Array, "*batch _H _W _I"], dtype: Any = None) -> Float[Array, "*batch _h _w _O"]:
        shape = (*_pair(self.kernel_size), x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", self.bias_init, (self.features,), jnp.float32) if self.use_bias else None
        return self.weigh(self.operation, x, kernel, bias, dtype)


class Conv(_Convolution):
    """`conv` with parameters: equal to `flax.linen.Conv` for two image axes.

    `upsample`: `conv_of_upsampled` in its place, with stride 1 and padding "SAME".
    """

    upsample: bool = False

    def operation(self, x: Array, kernel: Array) -> Array:
        if self.upsample:
            if (_pair(self.stride), self.padding) != ((1, 1), "SAME"):
                raise ValueError(f"Conv(upsample=True) has no stride={self.stride} and padding={self.padding!r}.")
            return conv_of_upsampled(x, kernel, backend=self.backend)
        return conv(x, kernel, self.stride, self.padding, backend=self.backend)


class ConvTranspose(_Convolution):
    """`conv_transpose` with parameters: equal to `flax.linen.ConvTranspose` for two image axes."""

    def operation(self, x: Array, kernel: Array) -> Array:
        return conv_transpose(x, kernel, self.stride, self.padding, backend=self.backend)
