"""Augmentations in front of a critic: for data and samples alike, in both players, with gradients through them.

Colour, translation and cutout of DiffAugment (Zhao et al. 2020, arXiv 2006.10738), and the adaptive probability of ADA
(Karras et al. 2020, arXiv 2006.06676). Images lie in [-1, 1], which translation and cutout fill with 0 as the authors
do; every example has a key of its own. All are piecewise linear in the image, hence safe for penalties on gradients.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

MODES = ("none", "diffaugment", "ada")
TRANSLATION = 0.125
"""Largest shift, as a share of the image's side."""
CUTOUT = 0.5
"""Side of the square that is cut out, as a share of the image's."""

Image = Float[Array, "H W C"]


def augment(
    x: Float[Array, "B H W C"], keys: Key[Array, "B"], probability: Float[Array, ""] | float
) -> Float[Array, "B H W C"]:
    """Applies each of the augmentations to each image with `probability`, independently; 1 is DiffAugment."""

    def one(image: Image, key: Key[Array, ""]) -> Image:
        for number, function in enumerate((colour, translation, cutout)):
            chosen_key, function_key = jax.random.split(jax.random.fold_in(key, number))
            chosen = jax.random.bernoulli(chosen_key, probability)
            image = jnp.where(chosen, function(image, function_key), image)
        return image

    return jax.vmap(one)(x, keys)


def colour(image: Image, key: Key[Array, ""]) -> Image:
    """Brightness shifted by up to 0.5, saturation times 0 to 2 (none on grey images), contrast times 0.5 to 1.5."""
    brightness, saturation, contrast = jax.random.uniform(key, (3,))
    image = image + brightness - 0.5
    grey = jnp.mean(image, axis=2, keepdims=True)
    image = grey + 2.0 * saturation * (image - grey)
    mean = jnp.mean(image)
    return mean + (contrast + 0.5) * (image - mean)


def translation(image: Image, key: Key[Array, ""]) -> Image:
    """A shift by whole pixels, up to an eighth of the image along each axis."""
    reach = jnp.array([_pixels(side, TRANSLATION) for side in image.shape[:2]])
    down, right = jax.random.randint(key, (2,), -reach, reach + 1)
    # Products with shifted unit matrices: their gradients are such products again, where a slice's are scatters.
    rows, columns = (
        (jnp.arange(side)[:, None] - shift == jnp.arange(side)).astype(image.dtype)
        for side, shift in ((image.shape[0], down), (image.shape[1], right))
    )
    return jnp.einsum("iy,jx,yxc->ijc", rows, columns, image)


def cutout(image: Image, key: Key[Array, ""]) -> Image:
    """Blanks a square of half the image's side, its centre anywhere in the image, clipped at the border."""
    masks = []
    for axis, axis_key in enumerate(jax.random.split(key)):
        side, size = image.shape[axis], _pixels(image.shape[axis], CUTOUT)
        start = jax.random.randint(axis_key, (), 0, side + 1 - size % 2) - size // 2
        place = jnp.arange(side)
        masks.append((place >= start) & (place < start + size))
    blank = masks[0][:, None] & masks[1][None, :]
    return jnp.where(blank[..., None], 0.0, image)


def _pixels(side: int, share: float) -> int:
    return int(side * share + 0.5)


def adapted(probability: Float[Array, ""], signs: Float[Array, "B"], target: float, images: int) -> Float[Array, ""]:
    """ADA's probability after a batch, from the signs of the scores of its real images (over the global batch).

    r_t, their mean, is 0 for a critic at a loss and 1 for one that knows the training set by heart; the probability
    moves towards r_t = `target` so fast that it would go from 0 to 1 in `images` images (Karras et al. 2020, section
    3: 0.6 and 500,000).
    """
    direction = jnp.sign(jnp.mean(signs) - target)
    return jnp.clip(probability + direction * len(signs) / images, 0.0, 1.0).astype(probability.dtype)
