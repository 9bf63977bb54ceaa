"""A density fitted to a model's codes after its training, to sample from where the prior is not usable or too wide.

Ghosh et al. 2020 (arXiv 1903.12436, section 4) for autoencoders without a prior; for a VAE it replaces p(z) by an
estimate of the aggregate posterior q(z).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from latent import rng
from latent.errors import UserError
from latent.types import Extra, Latent, Model, Params

RIDGE = 1e-6
"""Added to every variance, as scikit-learn does by default, so that a dead dimension leaves a density."""

OF_PRIOR = ("elbo", "kl")
"""Terms of a model that say how likely an example is under its own p(z)."""
OF_CODES = ("kl", "responsibilities")
"""What encoders tell of a code that depends on p(z)."""


class Density(NamedTuple):
    """sum_c weights_c N(z; mean_c, root_c root_c'), over latents flattened to d numbers; `shape` is that of one."""

    weights: Float[np.ndarray, "C"]
    means: Float[np.ndarray, "C d"]
    roots: Float[np.ndarray, "C d d"]
    shape: tuple[int, ...]


def components(name: str, key: str = "--density") -> int:
    """How many Gaussians a density's name asks for: "gaussian" is one, "mixture:K" K of them.

    Raises UserError for other names and K below 1.
    """
    kind, _, number = name.partition(":")
    if name == "gaussian":
        return 1
    if kind == "mixture" and number.isdigit() and int(number) > 0:
        return int(number)
    raise UserError(f"{key}={name!r} is not known. Allowed: gaussian, mixture:K with K Gaussians, such as mixture:10.")


def fit(codes: Float[np.ndarray, "N ..."], name: str, seed: int = 0) -> Density:
    """Fits the density `name` to codes by maximum likelihood, in float64: scikit-learn's EM with full covariances, from
    one k-means start (`seed`).

    Raises UserError for unknown names and for fewer codes than a covariance has dimensions per component.
    """
    from sklearn.mixture import GaussianMixture

    number, flat = components(name), np.asarray(codes, np.float64).reshape(len(codes), -1)
    least = number * (flat.shape[1] + 1)
    if len(flat) < least:
        raise UserError(f"--density={name}: {flat.shape[1]} dimensions need at least {least} codes, not {len(flat)}.")
    mixture = GaussianMixture(number, covariance_type="full", reg_covar=RIDGE, random_state=seed).fit(flat)
    return Density(mixture.weights_, mixture.means_, np.linalg.cholesky(mixture.covariances_), codes.shape[1:])


def sample(density: Density, keys: Key[Array, "N"]) -> Float[Array, "N ..."]:
    """One latent per key."""
    weights, means, roots = (jnp.asarray(part, jnp.float32) for part in density[:3])
    chosen = jax.vmap(lambda key: jax.random.categorical(jax.random.fold_in(key, 1), jnp.log(weights)))(keys)
    noise = rng.normal(keys, means.shape[1])
    flat = means[chosen] + jnp.einsum("nij,nj->ni", roots[chosen], noise)
    return flat.reshape(len(keys), *density.shape)


def replace_prior(model: Model, density: Density) -> Model:
    """The model with the density as prior: `sample` decodes draws of it; functions that speak of p(z) are gone.

    Raises UserError for a model that cannot decode.
    """
    if model.decode is None:
        raise UserError("--density: the family defines no decode, so draws of a density cannot be decoded.")

    @jax.jit
    def draw(params: Params, extra: Extra, keys: Key[Array, "N"], condition: None = None) -> Float[Array, "N ..."]:
        return model.decode(params, extra, sample(density, keys))

    def terms(*given: Any) -> dict[str, Float[Array, "B"]]:
        return {name: values for name, values in model.terms(*given).items() if name not in OF_PRIOR}

    def encode(*given: Any) -> Latent:
        code = model.encode(*given)
        return code._replace(info={name: value for name, value in code.info.items() if name not in OF_CODES})

    gone = dict.fromkeys(("log_weights", "log_prob", "log_joint", "simulate"))
    return model._replace(sample=draw, classes=0, text=False, terms=terms, encode=model.encode and encode, **gone)
