"""Layers with a kernel, and the dtype that their products are computed in. Knows no net, no loss and no config.

A kernel is multiplied in the `dtype` its layer is called with (None: what input and kernel promote to); parameters are
kept in float32, and a bias is added in float32 before the sum is rounded, so that its gradient, a sum over the batch,
is one of float32 too. Nobody hands a dtype from net to net: `computing_in` gives it to every layer that is called
inside, by flax's own interception of calls.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jaxtyping import Array, Float, Shaped


class Layer(nn.Module):
    """A layer that `computing_in` hands its dtype: the base of all that have a kernel."""

    def weigh(
        self,
        operation: Callable[[Array, Array], Array],
        x: Shaped[Array, "..."],
        kernel: Float[Array | np.ndarray, "..."],
        bias: Float[Array | np.ndarray, "_O"] | None,
        dtype: Any,
    ) -> Float[Array, "..."]:
        """operation(x, kernel) in `dtype`, then the bias of the last axis. Parameters that no run trains (an
        extractor's) may be NumPy's."""
        y = operation(*promote_dtype(x, kernel, dtype=dtype))
        if bias is None:
            return y
        return (y + jnp.reshape(bias, (1,) * (y.ndim - 1) + (-1,))).astype(y.dtype)


class Dense(Layer):
    """An affine map of the last axis: parameters and values of `flax.linen.Dense`."""

    features: int
    use_bias: bool = True
    kernel_init: Callable[..., Array] = nn.initializers.lecun_normal()
    bias_init: Callable[..., Array] = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: Shaped[Array, "*batch _I"], dtype: Any = None) -> Float[Array, "*batch _O"]:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", self.bias_init, (self.features,), jnp.float32) if self.use_bias else None
        return self.weigh(last_axis, x, kernel, bias, dtype)


def last_axis(x: Shaped[Array, "*batch _I"], kernel: Float[Array, "_I _O"]) -> Float[Array, "*batch _O"]:
    """The kernel applied to the last axis, as one flat product, everywhere the same: its gradient to the kernel, a sum
    over all other axes, took XLA:CPU twice as long with these apart (128x16x256 -> 1024: 22.8 against 10.7 ms)."""
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def wide(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """x in float32 at least: for statistics, for sums, and for what broadcasts, whose gradient is a sum."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def computing_in(dtype: Any) -> contextlib.AbstractContextManager[None]:
    """Inside, every layer's product is computed in `dtype`, and what a whole net returns is float32 again.

    Activations between two layers are of that dtype. It acts while functions are traced: a function must always be
    called inside, or never.
    """

    def intercept(call: Callable[..., Any], args: Any, keywords: Any, context: nn.module.InterceptorContext) -> Any:
        if context.method_name != "__call__":
            return call(*args, **keywords)
        if isinstance(context.module, Layer):
            keywords = {"dtype": dtype, **keywords}
        found = call(*args, **keywords)
        return found if context.module.path else jax.tree.map(_widened, found)

    return nn.intercept_methods(intercept)


def _widened(array: Any) -> Any:
    return array.astype(jnp.float32) if jnp.issubdtype(array.dtype, jnp.floating) else array
