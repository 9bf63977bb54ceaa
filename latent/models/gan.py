"""Generative adversarial networks: a critic and a generator, each a player; `critic_steps` is the generator's period.

The default is the loss of R3GAN (Huang et al. 2024, arXiv 2501.05441): relativistic pairing with zero-centred gradient
penalties on data and on samples, and no other trick.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from latent import config, rng
from latent.errors import UserError, unknown_name
from latent.models import adversarial
from latent.types import Batch, Context, DataSpec, Extra, Loss, Model, Params, Player

CRITIC, GENERATOR = "critic", "generator"
PENALTIES = ("r1", "r2", "gradient_penalty")


class Nets(NamedTuple):
    """The two networks. Where data lie in [0, 1] both work on [-1, 1]: samples pass a tanh, the critic's input is
    rescaled."""

    critic: nn.Module
    generator: nn.Module
    latent_dim: int
    bounded: bool

    def init(self, key: Key[Array, ""], batch: Batch) -> tuple[Params, Extra]:
        critic_key, generator_key = jax.random.split(key)
        return {
            CRITIC: self.critic.init(critic_key, batch["x"][:1])["params"],
            GENERATOR: self.generator.init(generator_key, jnp.zeros((1, self.latent_dim)))["params"],
        }, {}

    def score(self, params: Params, x: Float[Array, "B ..."]) -> Float[Array, "B"]:
        x = 2.0 * x - 1.0 if self.bounded else x
        return self.critic.apply({"params": params[CRITIC]}, x)["score"][:, 0]

    def generate(self, params: Params, z: Float[Array, "B d"]) -> Float[Array, "B ..."]:
        x = self.generator.apply({"params": params[GENERATOR]}, z)
        return 0.5 * (jnp.tanh(x) + 1.0) if self.bounded else x

    def pair(
        self, params: Params, batch: Batch, context: Context
    ) -> tuple[Float[Array, "B ..."], Float[Array, "B"], Float[Array, "B"]]:
        """Fresh samples, and the scores of data and samples."""
        fake = self.generate(params, rng.normal(context.keys("noise"), self.latent_dim))
        return fake, self.score(params, batch["x"]), self.score(params, fake)


def build(section: config.Section, spec: DataSpec) -> Model:
    """Builds the GAN that the config section `model` describes.

    Raises UserError for unknown losses, penalties and nets, and for shapes the nets cannot take.
    """
    if section.latent_dim < 1:
        raise UserError(f"model.latent_dim={section.latent_dim} must be at least 1.")
    if section.critic_steps < 1:
        raise UserError(f"model.critic_steps={section.critic_steps} must be at least 1.")
    if section.loss not in adversarial.LOSSES:
        raise unknown_name("model.loss", section.loss, adversarial.LOSSES)
    for penalty in section.penalties:
        if penalty not in PENALTIES:
            raise unknown_name("model.penalties", penalty, PENALTIES)
    losses, penalties = adversarial.LOSSES[section.loss], tuple(section.penalties)
    make_critic = config.select("latent.nets", section.net.name, "critic", "model.net.name")
    make_generator = config.select("latent.nets", section.net.name, "generator", "model.net.name")
    nets = Nets(
        critic=make_critic(section.net, spec.shape),
        generator=make_generator(section.net, spec.shape),
        latent_dim=section.latent_dim,
        bounded=spec.support != "real",
    )

    def adversarial_terms(real: Float[Array, "B"], fake: Float[Array, "B"]) -> dict[str, Float[Array, "B"]]:
        return {
            "adversarial": losses.critic(real, fake),
            "accuracy": (real > fake).astype(jnp.float32),
            "score_real": real,
            "score_fake": fake,
        }

    def critic_loss(params: Params, extra: Extra, batch: Batch, context: Context) -> Loss:
        fake, real_scores, fake_scores = nets.pair(params, batch, context)
        terms = adversarial_terms(real_scores, fake_scores)
        score = lambda x: nets.score(params, x)  # noqa: E731
        measured = {
            "r1": lambda: adversarial.squared_gradient(score, batch["x"]),
            "r2": lambda: adversarial.squared_gradient(score, fake),
            "gradient_penalty": lambda: adversarial.gradient_penalty(
                score, batch["x"], fake, context.keys("interpolation")
            ),
        }
        objective = jnp.mean(terms["adversarial"])
        for penalty in penalties:
            terms[penalty] = measured[penalty]()
            objective += context.hparams[CRITIC][penalty] * jnp.mean(terms[penalty])
        return Loss(objective, terms, extra)

    def generator_loss(params: Params, extra: Extra, batch: Batch, context: Context) -> Loss:
        fake, real_scores, fake_scores = nets.pair(params, batch, context)
        spread = jnp.std(fake.reshape(fake.shape[0], -1), axis=0)
        terms = {
            "adversarial": losses.generator(real_scores, fake_scores),
            # A generator that gives the same sample again and again shows here first.
            "diversity": jnp.full(fake.shape[0], jnp.mean(spread)),
        }
        return Loss(jnp.mean(terms["adversarial"]), terms, extra)

    def terms(params: Params, extra: Extra, batch: Batch, context: Context) -> dict[str, Float[Array, "B"]]:
        return adversarial_terms(*nets.pair(params, batch, context)[1:])

    def sample(
        params: Params, extra: Extra, keys: Key[Array, "N"], condition: None = None, *, temperature: float = 1.0
    ) -> Float[Array, "N ..."]:
        return nets.generate(params, temperature * rng.normal(keys, nets.latent_dim))

    def decode(params: Params, extra: Extra, z: Float[Array, "B d"]) -> Float[Array, "B ..."]:
        return nets.generate(params, z)

    players = (
        Player(CRITIC, (CRITIC,), critic_loss),
        Player(GENERATOR, (GENERATOR,), generator_loss, every=section.critic_steps),
    )
    return Model(init=nets.init, players=players, terms=terms, sample=sample, decode=decode)
