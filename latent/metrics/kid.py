"""Kernel distance: the squared maximum mean discrepancy of features under a cubic kernel (Binkowski et al. 2018,
arXiv 1801.01401, section 4). It is called KID on Inception's features only; on others it carries its extractor's name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from latent.errors import UserError
from latent.evaluation_data import EvaluationData
from latent.metrics import extraction, passport
from latent.types import Model, State

needs = {"sample"}
CHUNK = 1024
"""Rows of a kernel matrix held at a time."""


def names(options: Any) -> tuple[str, ...]:
    """Names of the results; UserError for an extractor that there is not, or fewer samples than a subset holds."""
    passport.require_counts("kid", options, num_subsets=0, subset_size=2)
    extraction.require("kid", options, least=options.subset_size if options.num_subsets else 2)
    return (extraction.title("kd", "kid", options.extractor),)


class Discrepancy(NamedTuple):
    """An unbiased estimate of MMD^2, and its variance over draws of both sets."""

    value: float
    variance: float


class _Block(NamedTuple):
    """Sums over a matrix of kernel values."""

    rows: Float[np.ndarray, "N"]
    columns: Float[np.ndarray, "M"]
    squares: float


def of_features(real: Float[np.ndarray, "N d"], fake: Float[np.ndarray, "M d"]) -> Discrepancy:
    """The U-statistic of MMD^2 under k(a, b) = (a.b / d + 1)^3 (eq. 4 of the paper, which allows N != M): unbiased,
    hence negative at times.

    The variance is that of its Hoeffding decomposition, both orders: the first (how every example is placed between
    the sets) vanishes where the sets have one law, and the second is then what is left.
    """
    n, m = len(real), len(fake)
    if min(n, m) < 2:
        raise UserError(f"a kernel distance needs at least 2 samples and 2 examples, not {m} and {n}.")
    real, fake = (np.asarray(values, np.float64) for values in (real, fake))
    within_real, within_fake, across = _block(real, real), _block(fake, fake), _block(real, fake)
    own_real, squares_real, second_real = _within(within_real, _kernel_of_itself(real))
    own_fake, squares_fake, second_fake = _within(within_fake, _kernel_of_itself(fake))
    other_real, other_fake = across.rows / m, across.columns / n
    mean_across = float(np.mean(other_real))
    second_across = across.squares / (n * m) - np.mean(other_real**2) - np.mean(other_fake**2) + mean_across**2
    second_across = max(0.0, second_across)
    # Means over few partners are noisy: without taking that out the second order would be counted in the first as well.
    first_real = np.var(own_real - other_real, ddof=1) - second_real / (n - 1) - second_across / m
    first_fake = np.var(own_fake - other_fake, ddof=1) - second_fake / (m - 1) - second_across / n
    first = 4 * max(0.0, first_real) / n + 4 * max(0.0, first_fake) / m
    second = 2 * second_real / (n * (n - 1)) + 2 * second_fake / (m * (m - 1)) + 4 * second_across / (n * m)
    return Discrepancy(squares_real + squares_fake - 2 * mean_across, float(first + second))


def _kernel(a: Float[np.ndarray, "N d"], b: Float[np.ndarray, "M d"]) -> Float[np.ndarray, "N M"]:
    return (a @ b.T / a.shape[1] + 1.0) ** 3


def _kernel_of_itself(a: Float[np.ndarray, "N d"]) -> Float[np.ndarray, "N"]:
    return (np.sum(a * a, axis=1) / a.shape[1] + 1.0) ** 3


def _block(a: Float[np.ndarray, "N d"], b: Float[np.ndarray, "M d"]) -> _Block:
    rows, columns, squares = [], np.zeros(len(b)), 0.0
    for start in range(0, len(a), CHUNK):
        values = _kernel(a[start : start + CHUNK], b)
        rows.append(values.sum(axis=1))
        columns += values.sum(axis=0)
        squares += float(np.vdot(values, values))
    return _Block(np.concatenate(rows), columns, squares)


def _within(block: _Block, diagonal: Float[np.ndarray, "N"]) -> tuple[Float[np.ndarray, "N"], float, float]:
    """Of one set with itself, the diagonal left out: the mean kernel of every example, the mean of these, and the mean
    square of the kernel with both taken out."""
    count = len(diagonal)
    rows = (block.rows - diagonal) / (count - 1)
    mean = float(np.mean(rows))
    squares = (block.squares - float(diagonal @ diagonal)) / (count * (count - 1))
    return rows, mean, max(0.0, squares - 2 * float(np.mean(rows**2)) + mean**2)


def _subsets(
    real: Float[np.ndarray, "N d"], fake: Float[np.ndarray, "M d"], size: int, count: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(0)
    for _ in range(count):
        yield tuple(values[generator.choice(len(values), size, replace=False)] for values in (real, fake))


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Of `options.num_samples` samples and the split, on the features of `options.extractor`.

    All pairs are used; with `options.num_subsets` above 0 it is the mean over as many random subsets of
    `options.subset_size` (100 of 1000 in the paper's code), which has the same expectation. The standard error is over
    draws of samples and data, and over the choice of subsets.
    """
    (name,) = names(options)
    compared = extraction.of_samples(options, state, data)
    if isinstance(compared, str):
        return [passport.undefined(name, compared)]
    fewest = min(len(compared.real), len(compared.fake))
    if fewest < (options.subset_size if options.num_subsets else 2):
        return [passport.undefined(name, f"kid.subset_size={options.subset_size} needs as many examples, not {fewest}")]
    value, variance = of_features(compared.real, compared.fake)
    estimator = "all pairs"
    if options.num_subsets:
        estimator = f"{options.num_subsets} subsets of {options.subset_size}"
        chosen = _subsets(compared.real, compared.fake, options.subset_size, options.num_subsets)
        values = [of_features(*pair).value for pair in chosen]
        value, variance = float(np.mean(values)), variance + float(np.var(values)) / options.num_subsets
    protocol = compared.protocol | {"kernel": "(x.y/d + 1)^3", "estimator": estimator}
    return [passport.Result(name, value, math.sqrt(variance), "MMD^2", protocol)]
