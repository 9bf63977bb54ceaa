"""Autoencoders: a bottleneck, a prior, a likelihood, a rate, penalties and an adversary, each chosen by the config.

Kingma & Welling 2014 (arXiv 1312.6114) is the Gaussian bottleneck with the standard normal prior and the KL as rate;
the other papers are other choices on the same axes, and each axis (`latent/autoencoding/`) names its own.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from latent import config
from latent.autoencoding import autoencoder, objectives
from latent.autoencoding.objectives import CRITIC, PLAYER
from latent.types import Batch, Context, DataSpec, Extra, Latent, Model, Params, Player

OWNS = {PLAYER: ("encoder", "decoder", "prior", "codebook"), CRITIC: (CRITIC,)}


def build(section: config.Section, spec: DataSpec) -> Model:
    """Builds the autoencoder that the config section `model` describes.

    Raises UserError for a latent dimensionality below 1, unknown names, combinations without a meaning, and shapes the
    nets cannot take.
    """
    parts = autoencoder.make(section, spec)
    losses, adversary = objectives.make(section, spec, parts)
    # Whether the objective pulls the codes towards p(z), so that decoded draws of it are samples.
    matches_prior = parts.has_density or "mmd" in section.penalties or section.adversary == "latent"

    def init(key: Key[Array, ""], batch: Batch) -> tuple[Params, Extra]:
        params, extra = parts.init(key, batch)
        if adversary is not None:
            params[CRITIC] = adversary.net.init(jax.random.fold_in(key, 1), jnp.zeros((1, *adversary.sees)))["params"]
        return params, extra

    def terms(params: Params, extra: Extra, batch: Batch, context: Context) -> dict[str, Float[Array, "B"]]:
        code = parts.encode(params, extra, batch["x"], context.keys("posterior"))
        return parts.terms(params, batch["x"], code)[0]

    def encode(params: Params, extra: Extra, x: Float[Array, "B ..."], keys: Key[Array, "B"]) -> Latent:
        code = parts.encode(params, extra, x, keys)
        info = {name: value for name, value in code.info.items() if name != "continuous"}
        if code.log_scale is not None:
            kl, dimensions = parts.kl(params, code)
            info["kl"] = kl[:, None] if dimensions is None else dimensions
            if code.cholesky is None:  # what reads it takes the posterior to be the product of its marginals
                info["log_scale"] = code.log_scale
        if parts.prior.responsibilities is not None:
            info["responsibilities"] = parts.prior.responsibilities(params, code.mean)
        return Latent(code.mean, code.samples[:, 0], info)

    def decode(params: Params, extra: Extra, z: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
        return parts.likelihood.mean(parts.decode(params, parts.bottleneck.snap(params, extra, z)))

    @partial(jax.jit, static_argnames="temperature")
    def sample(
        params: Params,
        extra: Extra,
        keys: Key[Array, "N"],
        condition: None = None,
        *,
        temperature: float = 1.0,
    ) -> Float[Array, "N ..."]:
        return decode(params, extra, parts.prior.sample(params, keys, temperature))

    def log_weights(
        params: Params, extra: Extra, batch: Batch, context: Context, num_samples: int
    ) -> Float[Array, "K B"]:
        code = parts.encode(params, extra, batch["x"], context.keys("posterior"), num_samples)
        return parts.weigh(params, batch["x"], code).T

    def log_joint(
        params: Params, extra: Extra, x: Float[Array, "B ..."], z: Float[Array, "B ..."]
    ) -> Float[Array, "B"]:
        draws = z[:, None]
        return (parts.log_likelihood(params, x, draws)[0] + parts.prior.log_prob(params, draws))[:, 0]

    def simulate(
        params: Params, extra: Extra, keys: Key[Array, "N"]
    ) -> tuple[Float[Array, "N ..."], Float[Array, "N ..."]]:
        return parts.simulate(params, keys)

    return Model(
        init=init,
        players=tuple(Player(name, OWNS[name], loss) for name, loss in losses.items()),
        terms=terms,
        sample=sample if matches_prior else None,
        encode=encode,
        decode=decode,
        log_weights=log_weights if parts.has_density else None,
        log_joint=log_joint if parts.has_density else None,
        simulate=simulate if parts.has_density else None,
        measure=parts.likelihood.measure,
    )
