"""The parts of an autoencoder and what they give together: code, reconstruction, bound. No objective, no training."""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from latent import config
from latent.autoencoding import likelihoods
from latent.autoencoding.contract import Bottleneck, Code, Prior, flat
from latent.autoencoding.gaussian import log_normal, log_normal_full, total_correlation
from latent.errors import UserError
from latent.types import Batch, DataSpec, Extra, Params


class Autoencoder(NamedTuple):
    """The parts that every function below is made of."""

    encoder: nn.Module
    decoder: nn.Module
    bottleneck: Bottleneck
    prior: Prior
    likelihood: likelihoods.Likelihood
    latent_shape: tuple[int, ...]

    @property
    def has_density(self) -> bool:
        """Whether there is a density q(z | x): a KL, importance weights, random draws."""
        return "log_scale" in self.bottleneck.heads

    def init(self, key: Key[Array, ""], batch: Batch) -> tuple[Params, Extra]:
        keys = jax.random.split(key, 4)
        params, extra = self.bottleneck.init(keys[2])
        params |= self.prior.init(keys[3])
        params["encoder"] = self.encoder.init(keys[0], batch["x"][:1])["params"]
        params["decoder"] = {"net": self.decoder.init(keys[1], jnp.zeros((1, *self.latent_shape)))["params"]}
        if self.likelihood.initial_log_scale is not None:
            params["decoder"]["log_scale"] = jnp.float32(self.likelihood.initial_log_scale)
        return params, extra

    def encode(
        self, params: Params, extra: Extra, x: Float[Array, "B ..."], keys: Key[Array, "B"], num_samples: int = 1
    ) -> Code:
        """The code of x, with K draws where encoding is random."""
        heads = self.encoder.apply({"params": params["encoder"]}, x)
        return self.bottleneck.encode(params, extra, heads, keys, num_samples)

    def decode(self, params: Params, z: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
        """The decoder's raw output."""
        return self.decoder.apply({"params": params["decoder"]["net"]}, z)

    def log_likelihood(
        self, params: Params, x: Float[Array, "B ..."], z: Float[Array, "B K ..."]
    ) -> tuple[Float[Array, "B K"], Float[Array, "B K ..."]]:
        """log p(x | z_k), nats, and the decoder's raw output."""
        # Draws first, images second: then x is not repeated, and the 63 ms of likelihoods.py become 14.
        draws = jnp.swapaxes(z, 0, 1)
        output = self.decode(params, draws.reshape(-1, *z.shape[2:]))
        output = output.reshape(*draws.shape[:2], *output.shape[1:])
        log_prob = jax.vmap(self.likelihood.log_prob, in_axes=(0, None, None))
        scale = params["decoder"].get("log_scale", 0.0)
        return log_prob(output, x, scale).T, jnp.swapaxes(output, 0, 1)

    def simulate(self, params: Params, keys: Key[Array, "N"]) -> tuple[Float[Array, "N ..."], Float[Array, "N ..."]]:
        """Exact draws (x, z) of p(z) p(x | z)."""
        first, second = (jax.vmap(lambda key, n=number: jax.random.fold_in(key, n))(keys) for number in range(2))
        z = self.prior.sample(params, first)
        draw = jax.vmap(self.likelihood.draw, in_axes=(0, 0, None))
        return draw(second, self.decode(params, z), params["decoder"].get("log_scale", 0.0)), z

    def weigh(self, params: Params, x: Float[Array, "B ..."], code: Code) -> Float[Array, "B K"]:
        """log p(x, z_k) - log q(z_k | x), the summands of every importance-sampled bound."""
        log_prior = self.prior.log_prob(params, code.samples)
        return self.log_likelihood(params, x, code.samples)[0] + log_prior - log_posterior(code)

    def kl(self, params: Params, code: Code) -> tuple[Float[Array, "B"], Float[Array, "B ..."] | None]:
        """KL(q(z | x) || p(z)): in closed form, with every marginal's, where the prior has one, else by the draws."""
        if self.prior.kl is not None:
            dimensions = self.prior.kl(code.mean, code.log_scale)
            total = jnp.sum(flat(dimensions, 1), axis=1)
            return total if code.cholesky is None else total + total_correlation(code.cholesky), dimensions
        return jnp.mean(log_posterior(code) - self.prior.log_prob(params, code.samples), axis=1), None

    def terms(
        self, params: Params, x: Float[Array, "B ..."], code: Code
    ) -> tuple[dict[str, Float[Array, "B"]], Float[Array, "B ..."] | None, Float[Array, "B K ..."]]:
        """`reconstruction` = -E_q log p(x | z), and with a posterior density `kl` and `elbo`, nats; the KL by
        dimension, and the decoder's raw output."""
        log_prob, output = self.log_likelihood(params, x, code.samples)
        terms = {"reconstruction": -jnp.mean(log_prob, axis=1)}
        if code.log_scale is None:
            return {**terms, **code.losses}, None, output
        kl, dimensions = self.kl(params, code)
        return {**terms, "kl": kl, "elbo": -terms["reconstruction"] - kl}, dimensions, output


def log_posterior(code: Code) -> Float[Array, "B K"]:
    """log q(z_k | x) of a code's own draws."""
    if code.cholesky is not None:
        each = lambda values: jnp.broadcast_to(values[:, None], (*code.samples.shape[:2], *values.shape[1:]))  # noqa: E731
        return log_normal_full(code.samples, each(code.mean), each(code.cholesky))
    return jnp.sum(flat(log_normal(code.samples, code.mean[:, None], code.log_scale[:, None]), 2), axis=-1)


def make(section: config.Section, spec: DataSpec) -> Autoencoder:
    """Builds the parts that the config section `model` names, and checks that they fit each other."""
    if section.latent_dim < 1:
        raise UserError(f"model.latent_dim={section.latent_dim} must be at least 1.")
    select = lambda symbol: config.select("latent.nets", section.net.name, symbol, "model.net.name")  # noqa: E731
    latent_shape = select("latent_shape")(section.net, spec.shape, section.latent_dim)
    make_bottleneck = config.select(
        "latent.autoencoding.bottlenecks", section.bottleneck, "bottleneck", "model.bottleneck"
    )
    bottleneck = make_bottleneck(section, latent_shape)
    if section.prior != "standard_normal" and "log_scale" not in bottleneck.heads:
        raise UserError(
            f"model.prior={section.prior!r} is trained through a posterior density, which "
            f"model.bottleneck={section.bottleneck!r} has not: set model.prior=standard_normal."
        )
    likelihood = likelihoods.make(section, spec)
    heads = tuple((head, bottleneck.widths.get(head, section.latent_dim)) for head in bottleneck.heads)
    encoder = select("encoder")(section.net, spec.shape, heads)

    def posterior(params: Params, x: Float[Array, "B ..."]) -> tuple[Array, Array]:
        heads = encoder.apply({"params": params["encoder"]}, x)
        return heads["mean"], heads["log_scale"]

    make_prior = config.select("latent.autoencoding.priors", section.prior, "prior", "model.prior")
    prior = make_prior(section, latent_shape, spec, posterior)
    decoder = select("decoder")(section.net, likelihood.output_bias.shape, likelihood.output_bias)
    return Autoencoder(encoder, decoder, bottleneck, prior, likelihood, latent_shape)
