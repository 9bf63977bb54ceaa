"""What a bottleneck and a prior are: named tuples of pure functions, read by models/vae.py.

Shapes: B examples, K draws of z for each, `latent` the shape of one z ([d], or [h, w, c] for spatial latents).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from latent.types import Context, Extra, Params


class Code(NamedTuple):
    """What a bottleneck makes of a batch.

    mean       the code an example is represented by
    samples    K draws of z (K = 1 where nothing is drawn); gradients pass, straight through where z is quantised
    log_scale  of a Gaussian posterior's marginals; None where there is no density q(z | x)
    losses     what the bottleneck itself adds to the objective, each weighted by the hparam of its name
    info       more that is known of every example ("indices" of a codebook)
    cholesky   of a Gaussian posterior's covariance, lower triangular; None where it is diagonal
    """

    mean: Float[Array, "B ..."]
    samples: Float[Array, "B K ..."]
    log_scale: Float[Array, "B ..."] | None
    losses: dict[str, Float[Array, "B"]]
    info: dict[str, Any]
    cholesky: Float[Array, "B d d"] | None = None


class Bottleneck(NamedTuple):
    """Between encoder and decoder.

    heads   the encoder's outputs it works on, each with the channels of z or those that `widths` names
    init    key -> (params, extra) of its own, under the component "codebook"; empty where it has none
    encode  (params, extra, {head: [B, latent]}, keys [B], K) -> Code
    learn   (extra, code, context) -> (extra, terms): what is learnt without a gradient, and what is worth logging
    snap    (params, extra, z [B, latent]) -> the nearest z that encoding can give
    """

    heads: tuple[str, ...]
    encode: Callable[[Params, Extra, dict[str, Array], Key[Array, "B"], int], Code]
    init: Callable[[Key[Array, ""]], tuple[Params, Extra]] = lambda key: ({}, {})
    learn: Callable[[Extra, Code, Context], tuple[Extra, dict[str, Array]]] = lambda extra, code, context: (extra, {})
    snap: Callable[[Params, Extra, Array], Array] = lambda params, extra, z: z
    widths: Mapping[str, int] = MappingProxyType({})


class Prior(NamedTuple):
    """p(z).

    init              key -> its params, under the component "prior"; empty where nothing is trained
    log_prob          (params, z [B, K, latent]) -> [B, K], nats
    sample            (params, keys [N], temperature=1) -> z [N, latent]; the temperature scales the Gaussian noise
    kl                (mean, log_scale) -> KL(q || p) per dimension [B, latent], where that has a closed form
    responsibilities  (params, z [B, latent]) -> p(component | z) [B, C], for mixtures
    """

    log_prob: Callable[[Params, Array], Float[Array, "B K"]]
    sample: Callable[..., Float[Array, "N ..."]]
    init: Callable[[Key[Array, ""]], Params] = lambda key: {}
    kl: Callable[[Array, Array], Float[Array, "B ..."]] | None = None
    responsibilities: Callable[[Params, Array], Float[Array, "B C"]] | None = None


def flat(values: Float[Array, "..."], leading: int) -> Float[Array, "..."]:
    """Everything after the first `leading` axes as one axis: [B, K, h, w, c] -> [B, K, h * w * c]."""
    return jnp.reshape(values, (*values.shape[:leading], -1))
