"""Images that a unit of a net answers to most: gradient ascent on the image's spectrum.

Olah, Mordvintsev & Schubert 2017 (Feature Visualization, distill.pub): the image is the sigmoid of an inverse Fourier
transform whose coefficients are scaled by 1 / frequency, so that steps change all frequencies alike, and it is shifted
by a random pixel or two before every step, so that no single pixel can do the work.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from latent import rng

ActivateFn = Callable[[Float[Array, "B H W C"]], Float[Array, "B"]]
"""Images -> what each is to maximise."""


def image(spectrum: Float[Array, "B H F C 2"], width: int) -> Float[Array, "B H W C"]:
    """The image in (0, 1) of real and imaginary coefficients; F = width // 2 + 1."""
    height = spectrum.shape[1]
    rows, columns = jnp.fft.fftfreq(height)[:, None], jnp.fft.rfftfreq(width)[None]
    frequency = jnp.maximum(jnp.sqrt(rows**2 + columns**2), 1.0 / max(height, width))
    scaled = jax.lax.complex(spectrum[..., 0], spectrum[..., 1]) / frequency[None, ..., None]
    return jax.nn.sigmoid(jnp.fft.irfft2(scaled, s=(height, width), axes=(1, 2), norm="ortho"))


def maximise(
    activate: ActivateFn,
    shape: tuple[int, int, int],
    keys: Key[Array, "B"],
    steps: int = 48,
    learning_rate: float = 0.03,
    jitter: int = 1,
) -> Float[Array, "B H W C"]:
    """`steps` updates of Adam from noise of a hundredth; images never meet. More or larger steps: black and white.

    Steps are dispatched one by one: nets with convolutions must not stand in a compiled loop on CPU."""
    height, width, channels = shape
    adam = optax.scale_by_adam()

    def shifted(spectrum: Array, i: Array) -> Array:
        x = image(spectrum, width)
        moved = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, i + 1)
        by = jax.vmap(lambda key: jax.random.randint(key, (2,), -jitter, jitter + 1))(moved)
        return jax.vmap(lambda one, shift: jnp.roll(one, shift, axis=(0, 1)))(x, by)

    @jax.jit
    def step(spectrum: Array, state: optax.OptState, i: Array) -> tuple[Array, optax.OptState]:
        direction, state = adam.update(jax.grad(lambda s: -jnp.sum(activate(shifted(s, i))))(spectrum), state)
        return spectrum - learning_rate * direction, state

    first = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, 0)
    spectrum = 0.01 * rng.normal(first, height, width // 2 + 1, channels, 2)
    state = adam.init(spectrum)
    for i in range(steps):
        spectrum, state = step(spectrum, state, jnp.asarray(i))
    return image(spectrum, width)
