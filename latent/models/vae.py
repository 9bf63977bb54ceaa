"""Variational autoencoders with a diagonal Gaussian posterior and a standard normal prior.

Kingma & Welling 2014 (arXiv 1312.6114), with beta (Higgins et al. 2017), capacity (Burgess et al. 2018), free bits
(Kingma et al. 2016) and the importance-weighted bound (Burda et al. 2016, arXiv 1509.00519).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from latent import config, rng
from latent.errors import UserError, unknown_name
from latent.models import likelihoods
from latent.types import Batch, Context, DataSpec, Extra, Latent, Loss, Model, Params, Player

PLAYER = "autoencoder"


class Posterior(NamedTuple):
    """q(z | x) = N(mean, exp(log_scale)^2), diagonal."""

    mean: Float[Array, "B d"]
    log_scale: Float[Array, "B d"]


def gaussian_kl(posterior: Posterior) -> Float[Array, "B d"]:
    """KL(q(z_j | x) || N(0, 1)) per dimension, nats (Kingma & Welling 2014, appendix B)."""
    variance = jnp.exp(2 * posterior.log_scale)
    return 0.5 * (posterior.mean**2 + variance - 1.0) - posterior.log_scale


def log_normal(z: Float[Array, "*any d"], mean: Any = 0.0, log_scale: Any = 0.0) -> Float[Array, "*any"]:
    """log N(z; mean, exp(log_scale)^2), summed over the last axis, nats."""
    standardised = (z - mean) * jnp.exp(-log_scale)
    return jnp.sum(-0.5 * standardised**2 - log_scale - 0.5 * math.log(2 * math.pi), axis=-1)


class Nets(NamedTuple):
    """The two networks and the likelihood: everything the functions below are made of."""

    encoder: nn.Module
    decoder: nn.Module
    likelihood: likelihoods.Likelihood
    latent_dim: int

    def init(self, key: Key[Array, ""], batch: Batch) -> tuple[Params, Extra]:
        encoder_key, decoder_key = jax.random.split(key)
        z = jnp.zeros((1, self.latent_dim))
        params = {
            "encoder": self.encoder.init(encoder_key, batch["x"][:1])["params"],
            "decoder": {"net": self.decoder.init(decoder_key, z)["params"]},
        }
        if self.likelihood.initial_log_scale is not None:
            params["decoder"]["log_scale"] = jnp.float32(self.likelihood.initial_log_scale)
        return params, {}

    def posterior(self, params: Params, x: Float[Array, "B ..."]) -> Posterior:
        return Posterior(**self.encoder.apply({"params": params["encoder"]}, x))

    def decode(self, params: Params, z: Float[Array, "B d"]) -> Float[Array, "B ..."]:
        return self.decoder.apply({"params": params["decoder"]["net"]}, z)

    def log_likelihood(self, params: Params, x: Float[Array, "B ..."], z: Float[Array, "B K d"]) -> Float[Array, "B K"]:
        """log p(x | z_k), nats."""
        batch, samples = z.shape[:2]
        output = self.decode(params, z.reshape(batch * samples, -1))
        repeated = jnp.broadcast_to(x[:, None], (batch, samples, *x.shape[1:])).reshape(output.shape)
        scale = params["decoder"].get("log_scale", 0.0)
        return self.likelihood.log_prob(output, repeated, scale).reshape(batch, samples)

    def draw(
        self, params: Params, x: Float[Array, "B ..."], keys: Key[Array, "B"], num_samples: int
    ) -> tuple[Posterior, Float[Array, "B K d"]]:
        """The posterior and K reparameterised draws from it."""
        posterior = self.posterior(params, x)
        noise = rng.normal(keys, num_samples, self.latent_dim)
        return posterior, posterior.mean[:, None] + jnp.exp(posterior.log_scale)[:, None] * noise

    def log_weights(
        self, params: Params, extra: Extra, batch: Batch, context: Context, num_samples: int
    ) -> Float[Array, "K B"]:
        """log p(x, z_k) - log q(z_k | x), the summands of every importance-sampled bound."""
        posterior, z = self.draw(params, batch["x"], context.keys("posterior"), num_samples)
        return self.weigh(params, batch["x"], posterior, z).T

    def weigh(
        self, params: Params, x: Float[Array, "B ..."], posterior: Posterior, z: Float[Array, "B K d"]
    ) -> Float[Array, "B K"]:
        """Log importance weights of given draws."""
        log_q = log_normal(z, posterior.mean[:, None], posterior.log_scale[:, None])
        return self.log_likelihood(params, x, z) + log_normal(z) - log_q

    def elbo_terms(
        self, params: Params, batch: Batch, context: Context, num_samples: int
    ) -> tuple[Posterior, dict[str, Float[Array, "B"]]]:
        """ELBO with the KL in closed form; `reconstruction` is -E_q log p(x | z). Nats."""
        posterior, z = self.draw(params, batch["x"], context.keys("posterior"), num_samples)
        reconstruction = -jnp.mean(self.log_likelihood(params, batch["x"], z), axis=1)
        kl = jnp.sum(gaussian_kl(posterior), axis=1)
        return posterior, {"reconstruction": reconstruction, "kl": kl, "elbo": -reconstruction - kl}


def _elbo_loss(nets: Nets, section: Any, num_samples: int):
    """Minimises reconstruction + beta * rate, where the rate is the KL, the KL with free bits, or its distance to a
    growing capacity; beta and the capacity are scalars of the state."""
    regulariser = section.regulariser
    if regulariser not in ("kl", "free_bits", "capacity"):
        raise unknown_name("model.regulariser", regulariser, ("kl", "free_bits", "capacity"))
    ramp_steps = section.capacity_steps if regulariser == "capacity" else section.kl_warmup_steps

    if ramp_steps < 0:
        key = "capacity_steps" if regulariser == "capacity" else "kl_warmup_steps"
        raise UserError(f"model.{key}={ramp_steps} must not be negative (0: no ramp).")

    def loss(params: Params, extra: Extra, batch: Batch, context: Context) -> Loss:
        hparams = context.hparams[PLAYER]
        posterior, terms = nets.elbo_terms(params, batch, context, num_samples)
        ramp = jnp.minimum(1.0, context.step / ramp_steps) if ramp_steps else 1.0
        weight = hparams["beta"] * (1.0 if regulariser == "capacity" else ramp)
        rate = jnp.mean(terms["kl"])
        if regulariser == "free_bits":
            # Kingma et al. 2016, appendix C.8: the floor acts on each dimension's mean over the (global) batch.
            per_dimension = context.mean(jnp.mean(gaussian_kl(posterior), axis=0))
            rate = jnp.sum(jnp.maximum(per_dimension, hparams["free_bits"]))
        elif regulariser == "capacity":
            rate = jnp.abs(context.mean(rate) - ramp * hparams["capacity"])  # Burgess et al. 2018, eq. 8
        return Loss(jnp.mean(terms["reconstruction"]) + weight * rate, terms, extra)

    return loss


def _iwae_loss(nets: Nets, num_samples: int):
    """Minimises -log 1/K sum_k w_k (Burda et al. 2016, eq. 8)."""

    def loss(params: Params, extra: Extra, batch: Batch, context: Context) -> Loss:
        posterior, z = nets.draw(params, batch["x"], context.keys("posterior"), num_samples)
        log_weights = nets.weigh(params, batch["x"], posterior, z)
        bound = jax.nn.logsumexp(log_weights, axis=1) - math.log(num_samples)
        kl = jnp.sum(gaussian_kl(posterior), axis=1)
        elbo = jnp.mean(log_weights, axis=1)
        terms = {"iwae": bound, "elbo": elbo, "kl": kl, "reconstruction": -elbo - kl}
        return Loss(-jnp.mean(bound), terms, extra)

    return loss


def build(section: config.Section, spec: DataSpec) -> Model:
    """Builds the VAE that the config section `model` describes.

    Raises UserError for a latent dimensionality below 1, unknown names, and shapes the nets cannot take.
    """
    latent_dim, num_samples = section.latent_dim, section.num_samples
    if latent_dim < 1:
        raise UserError(f"model.latent_dim={latent_dim} must be at least 1.")
    if num_samples < 1:
        raise UserError(f"model.num_samples={num_samples} must be at least 1.")
    likelihood = likelihoods.make(section, spec)
    make_encoder = config.select("latent.nets", section.net.name, "encoder", "model.net.name")
    make_decoder = config.select("latent.nets", section.net.name, "decoder", "model.net.name")
    heads = (("mean", latent_dim), ("log_scale", latent_dim))
    nets = Nets(
        encoder=make_encoder(section.net, spec.shape, heads),
        decoder=make_decoder(section.net, spec.shape, likelihood.output_bias),
        likelihood=likelihood,
        latent_dim=latent_dim,
    )
    if section.objective == "elbo":
        loss = _elbo_loss(nets, section, num_samples)
    elif section.objective == "iwae":
        loss = _iwae_loss(nets, num_samples)
    else:
        raise unknown_name("model.objective", section.objective, ("elbo", "iwae"))

    def terms(params: Params, extra: Extra, batch: Batch, context: Context) -> dict[str, Float[Array, "B"]]:
        return nets.elbo_terms(params, batch, context, num_samples=1)[1]

    def encode(params: Params, extra: Extra, x: Float[Array, "B ..."], keys: Key[Array, "B"]) -> Latent:
        posterior, z = nets.draw(params, x, keys, num_samples=1)
        info = {"log_scale": posterior.log_scale, "kl": gaussian_kl(posterior)}
        return Latent(posterior.mean, z[:, 0], info)

    def decode(params: Params, extra: Extra, z: Float[Array, "B d"]) -> Float[Array, "B ..."]:
        return likelihood.mean(nets.decode(params, z))

    def sample(
        params: Params,
        extra: Extra,
        keys: Key[Array, "N"],
        condition: None = None,
        *,
        temperature: float = 1.0,
    ) -> Float[Array, "N ..."]:
        return decode(params, extra, temperature * rng.normal(keys, latent_dim))

    return Model(
        init=nets.init,
        players=(Player(PLAYER, ("encoder", "decoder"), loss),),
        terms=terms,
        sample=sample,
        encode=encode,
        decode=decode,
        log_weights=nets.log_weights,
    )
