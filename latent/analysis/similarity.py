"""How alike two representations of the same examples are, whatever rotation and scale: of two layers, or two models."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from latent.errors import UserError


def debiased_cka(x: Float[np.ndarray, "N d"], y: Float[np.ndarray, "M e"]) -> float:
    """Centred alignment of linear kernels (Kornblith et al. 2019, arXiv 1905.00414, eq. 4): 1 where one is a rotation
    and scaling of the other. From unbiased estimates of the three dependences (Song et al. 2012, JMLR 13, eq. 5), so
    that it is about 0 for independent representations of any width, and negative at times. UserError where nothing
    varies, examples do not match, or fewer than 4 are given.
    """
    x, y = _centred(x, y)
    if len(x) < 4:
        raise UserError(f"a debiased alignment needs at least 4 examples, not {len(x)}.")
    return float(_dependence(x, y) / np.sqrt(_dependence(x, x) * _dependence(y, y)))


def matrix(
    first: Mapping[str, Float[np.ndarray, "N _"]], second: Mapping[str, Float[np.ndarray, "N _"]]
) -> Float[np.ndarray, "F S"]:
    """`debiased_cka` of every representation of the first with every one of the second, in their order. NaN for one
    that is the same for every example: a dead layer is like no other."""

    def alignment(x: np.ndarray, y: np.ndarray) -> float:
        varies = all(np.ptp(values, axis=0).any() for values in (x, y))
        return debiased_cka(x, y) if varies else float("nan")

    return np.array([[alignment(x, y) for y in second.values()] for x in first.values()])


def _dependence(x: Float[np.ndarray, "N d"], y: Float[np.ndarray, "N e"]) -> float:
    """The unbiased HSIC times N (N - 3), from products of size d x e: no matrix N x N is ever formed.

    With K = X X^T, its diagonal taken out, and X centred: sum K_ij L_ij, sum K and K 1 follow from X^T Y and |x_i|^2.
    """
    count = len(x)
    own_x, own_y = np.sum(x * x, axis=1), np.sum(y * y, axis=1)
    shared = np.sum((x.T @ y) ** 2) - own_x @ own_y
    total_x, total_y = -np.sum(own_x), -np.sum(own_y)  # rows of a centred K add up to 0: what is left is the diagonal
    rows = own_x @ own_y
    return shared + total_x * total_y / ((count - 1) * (count - 2)) - 2 * rows / (count - 2)


def _centred(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(x) != len(y):
        raise UserError(f"representations must be of the same examples: {len(x)} and {len(y)} do not match.")
    x, y = (np.asarray(values, np.float64).reshape(len(values), -1) for values in (x, y))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    if not (x.any() and y.any()):
        raise UserError("a representation that is the same for every example has no similarity to another.")
    return x, y
