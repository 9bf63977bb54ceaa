"""Vector quantisation: z is the nearest vector of a learned codebook (van den Oord et al. 2017, arXiv 1711.00937).

The codebook follows the encoder's outputs by moving averages (appendix A.1), or by gradient. Codes that are hardly
used restart at outputs of the current batch (Dhariwal et al. 2020, arXiv 2005.00341), which also initialises them all.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from latent.autoencoding.contract import Bottleneck, Code
from latent.errors import UserError, unknown_name
from latent.types import Context, Extra

COMPONENT = "codebook"


def nearest(vectors: Float[Array, "... d"], codebook: Float[Array, "C d"]) -> Int[Array, "..."]:
    """The number of the codebook vector next to each vector, in Euclidean distance."""
    # |v - c|^2 without |v|^2, which is the same for every c.
    distance = jnp.sum(codebook**2, axis=1) - 2.0 * vectors @ codebook.T
    return jnp.argmin(distance, axis=-1).astype(jnp.int32)


def shares(indices: Int[Array, "B T"], size: int, context: Context) -> Float[Array, "C"]:
    """How often each code is used, as a share of all uses in the global batch."""
    counts = jnp.zeros(size).at[indices.reshape(-1)].add(1.0)
    return context.mean(counts / indices.size)


def perplexity(indices: Int[Array, "B T"], size: int, context: Context) -> Float[Array, "B"]:
    """exp(entropy) of the codes that the global batch uses: `size` if all are used alike, 1 if only one is."""
    share = shares(indices, size, context)
    entropy = -jnp.sum(jnp.where(share > 0, share * jnp.log(jnp.where(share > 0, share, 1.0)), 0.0))
    return jnp.full(indices.shape[0], jnp.exp(entropy))


def _tokens(vectors: Float[Array, "B ..."], width: int) -> Float[Array, "B T d"]:
    return vectors.reshape(vectors.shape[0], -1, width)


def _follow(
    book: dict[str, Array], tokens: Float[Array, "B T d"], indices: Int[Array, "B T"], decay: float, context: Context
) -> dict[str, Array]:
    """One step of the moving averages: shares of use, and the sum of the vectors that chose each code."""
    size, width = book["vectors"].shape
    sums = jnp.zeros((size, width)).at[indices.reshape(-1)].add(tokens.reshape(-1, width)) / indices.size
    share = decay * book["share"] + (1 - decay) * shares(indices, size, context)
    total = decay * book["sum"] + (1 - decay) * context.mean(sums)
    used = share > 1e-8
    vectors = jnp.where(used[:, None], total / jnp.where(used, share, 1.0)[:, None], book["vectors"])
    return {"vectors": vectors, "share": share, "sum": total}


def _restart(
    book: dict[str, Array], tokens: Float[Array, "B T d"], threshold: float, context: Context
) -> dict[str, Array]:
    """Moves codes used less than `threshold` times the even share to random outputs of the global batch."""
    size, width = book["vectors"].shape
    draws = jax.vmap(lambda key: jax.random.uniform(key, tokens.shape[1:2]))(context.keys("restart"))
    candidates, draws = context.gather((tokens, draws))
    candidates = candidates.reshape(-1, width)
    _, order = jax.lax.top_k(draws.reshape(-1), min(size, len(candidates)))
    fresh = candidates[order[jnp.arange(size) % len(order)]]
    dead = book["share"] < threshold / size
    # A fresh code starts at the even share, so that it has time to find its own.
    share = jnp.where(dead, 1.0 / size, book["share"])
    vectors = jnp.where(dead[:, None], fresh, book["vectors"])
    return {"vectors": vectors, "share": share, "sum": jnp.where(dead[:, None], vectors / size, book["sum"])}


def bottleneck(section: Any, latent_shape: tuple[int, ...]) -> Bottleneck:
    """Reads `model.codebook`: size, groups (codes a latent vector is made of, all from one codebook), update (ema |
    gradient), decay and restart_below (of ema; 0: never)."""
    options = section.codebook
    size, groups, update = options.size, options.groups, options.update
    if size < 2:
        raise UserError(f"model.codebook.size={size} must be at least 2.")
    if groups < 1 or latent_shape[-1] % groups:
        raise UserError(f"model.codebook.groups={groups} must divide model.latent_dim={latent_shape[-1]}.")
    if update not in ("ema", "gradient"):
        raise unknown_name("model.codebook.update", update, ("ema", "gradient"))
    width, by_average = latent_shape[-1] // groups, update == "ema"
    decay, threshold = (options.decay, options.restart_below) if by_average else (0.0, 0.0)
    if not 0.0 <= decay < 1.0:
        raise UserError(f"model.codebook.decay={decay} must lie in [0, 1).")
    if not 0.0 <= threshold < 1.0:
        raise UserError(f"model.codebook.restart_below={threshold} must lie in [0, 1): a share of the even use.")

    def init(key: Any) -> tuple[Any, Any]:
        vectors = jax.random.normal(key, (size, width))
        if not by_average:
            return {COMPONENT: vectors}, {}
        # A share of zero is below every threshold: the first training step takes all codes from its batch.
        share = jnp.full(size, 0.0 if threshold else 1.0 / size)
        return {}, {COMPONENT: {"vectors": vectors, "share": share, "sum": vectors * share[:, None]}}

    def vectors_of(params: Any, extra: Any) -> Float[Array, "C d"]:
        return extra[COMPONENT]["vectors"] if by_average else params[COMPONENT]

    def encode(params: Any, extra: Any, heads: Any, keys: Any, num_samples: int) -> Code:
        raw = heads["code"]
        codebook = vectors_of(params, extra)
        tokens = _tokens(raw, width)
        indices = nearest(jax.lax.stop_gradient(tokens), jax.lax.stop_gradient(codebook))
        quantised = codebook[indices].reshape(raw.shape)
        axes = tuple(range(1, raw.ndim))
        losses = {"commitment": jnp.sum((raw - jax.lax.stop_gradient(quantised)) ** 2, axis=axes)}
        if not by_average:
            losses["codebook"] = jnp.sum((jax.lax.stop_gradient(raw) - quantised) ** 2, axis=axes)
        z = raw + jax.lax.stop_gradient(quantised - raw)
        return Code(z, z[:, None], None, losses, {"indices": indices, "continuous": raw})

    def learn(extra: Extra, code: Code, context: Context) -> tuple[Extra, dict[str, Array]]:
        indices = code.info["indices"]
        terms = {"perplexity": perplexity(indices, size, context)}
        if not by_average:
            return extra, terms
        tokens = jax.lax.stop_gradient(_tokens(code.info["continuous"], width))
        book = _follow(extra[COMPONENT], tokens, indices, decay, context)
        if threshold:
            book = _restart(book, tokens, threshold, context)
        return {**extra, COMPONENT: book}, terms

    def snap(params: Any, extra: Any, z: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
        codebook = vectors_of(params, extra)
        return codebook[nearest(_tokens(z, width), codebook)].reshape(z.shape)

    return Bottleneck(("code",), encode, init, learn, snap)
