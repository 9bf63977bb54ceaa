"""q(z | x) = N(mean(x), L(x) L(x)'), L lower triangular with a positive diagonal (Kingma & Welling 2019, arXiv
1906.02691, section 2.5.1): what a diagonal posterior cannot be, such as that of probabilistic PCA."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from latent import rng
from latent.autoencoding.contract import Bottleneck, Code
from latent.autoencoding.gaussian import marginal_log_scale
from latent.errors import UserError

DIAGONAL_ONLY = {"rate": ("free_bits",), "prior": ("vamp",)}
"""What takes the posterior to be the product of its marginals."""


def bottleneck(section: Any, latent_shape: tuple[int, ...]) -> Bottleneck:
    """Checks that nothing that was chosen needs a diagonal posterior, and that z is a vector of 2 numbers at least."""
    if len(latent_shape) != 1 or latent_shape[0] < 2:
        raise UserError(f"model.bottleneck='gaussian_full' needs latent vectors of 2 numbers or more: {latent_shape}.")
    for key, values in DIAGONAL_ONLY.items():
        if section[key] in values:
            raise UserError(f"model.{key}={section[key]!r} needs a diagonal posterior: set model.bottleneck=gaussian.")
    if section.penalties:
        raise UserError(
            f"model.penalties={section.penalties} need a diagonal posterior: set model.bottleneck=gaussian."
        )
    (size,) = latent_shape
    rows, columns = np.tril_indices(size, -1)

    def encode(params: Any, extra: Any, heads: Any, keys: Any, num_samples: int) -> Code:
        mean, diagonal = heads["mean"], jnp.arange(size)
        cholesky = jnp.zeros((len(mean), size, size), mean.dtype).at[:, rows, columns].set(heads["off_diagonal"])
        cholesky = cholesky.at[:, diagonal, diagonal].set(jnp.exp(heads["log_scale"]))
        noise = rng.normal(keys, num_samples, size)
        samples = mean[:, None] + jnp.sum(cholesky[:, None] * noise[:, :, None], axis=-1)
        return Code(mean, samples, marginal_log_scale(cholesky), {}, {}, cholesky)

    return Bottleneck(("mean", "log_scale", "off_diagonal"), encode, widths={"off_diagonal": len(rows)})
