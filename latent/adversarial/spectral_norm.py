"""Spectral normalisation of a params tree (Miyato et al. 2018, arXiv 1802.05957, algorithm 1), for any net.

Works on arrays alone: the net is applied to the normalised tree and never learns of it. The vectors of the power
iteration are not trained; they live in `extra` beside the component whose kernels they belong to.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import lax
from jaxtyping import Array, Float, Key, PyTree

SMALLEST = 1e-3
"""Kernels of a smaller norm are divided by this instead: one that starts at zero stays finite."""


def init(key: Key[Array, ""], params: PyTree) -> PyTree:
    """Random unit vectors, one [outputs] for every array of at least two axes."""
    kernels = _kernels(params)
    keys = jax.random.split(key, len(kernels))
    drawn = {path: jax.random.normal(k, kernels[path].shape[-1:]) for k, path in zip(keys, kernels, strict=True)}
    return unflatten_dict({path: vector / jnp.linalg.norm(vector) for path, vector in drawn.items()})


def normalise(params: PyTree, vectors: PyTree, rounds: int = 1) -> tuple[PyTree, PyTree]:
    """Every kernel divided by its largest singular value, and the vectors after `rounds` of the power iteration.

    A kernel [..., outputs] counts as the matrix [inputs, outputs] of its flattened leading axes, which for a
    convolution is the paper's choice and not the norm of the operator on images. Gradients reach the kernels through
    the singular value, the vectors being held fixed (the paper's eq. 11). The vectors converge over the calls of
    training: after few of them the estimate is too small, and the kernel's norm still above 1.
    """
    flat, new = flatten_dict(params), {}
    for path, vector in flatten_dict(vectors).items():
        sigma, new[path] = largest_singular_value(flat[path].reshape(-1, flat[path].shape[-1]), vector, rounds)
        flat[path] = flat[path] / jnp.maximum(sigma, SMALLEST)
    return unflatten_dict(flat), unflatten_dict(new)


def largest_singular_value(
    matrix: Float[Array, "inputs outputs"], vector: Float[Array, "outputs"], rounds: int
) -> tuple[Float[Array, ""], Float[Array, "outputs"]]:
    """Estimate of the largest singular value from below, and the improved right singular vector."""
    fixed, right = lax.stop_gradient(matrix), lax.stop_gradient(vector)
    for _ in range(rounds):
        left = _unit(fixed @ right, jnp.zeros(len(fixed)))
        right = _unit(left @ fixed, right)
    return left @ matrix @ right, right


def _kernels(params: PyTree) -> dict[tuple[str, ...], Array]:
    return {path: leaf for path, leaf in flatten_dict(params).items() if leaf.ndim >= 2}


def _unit(vector: Float[Array, "n"], otherwise: Float[Array, "n"]) -> Float[Array, "n"]:
    """The vector at length 1; `otherwise` for the zero vector, which has no direction to iterate from."""
    norm = jnp.linalg.norm(vector)
    return jnp.where(norm > 0.0, vector / jnp.maximum(norm, 1e-30), otherwise)
