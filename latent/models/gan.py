"""Generative adversarial networks: a critic and a generator, each a player; `critic_steps` is the generator's period.

The default is the loss of R3GAN (Huang et al. 2024, arXiv 2501.05441): relativistic pairing with zero-centred gradient
penalties on data and on samples, and no other trick. Class conditioning, spectral normalisation and augmentation are
axes of their own: each goes with every loss and every net.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from latent import config, rng
from latent.adversarial import augmentation, spectral_norm
from latent.adversarial import losses as adversarial
from latent.adversarial.inversion import Inversion, invert
from latent.errors import UserError, unknown_name
from latent.nets.layers import Dense
from latent.types import Batch, Context, DataSpec, Extra, Latent, Loss, LossFn, Model, Params, Player

CRITIC, GENERATOR = "critic", "generator"
PENALTIES = ("r1", "r2", "gradient_penalty")
ANCHORED = ("non_saturating", "hinge")
"""Losses whose scores say "real" by their sign; the others do not change when every score is shifted or moved to 1."""

Labels = Int[Array, "B"] | None
Judge = Callable[[Float[Array, "B ..."], str], Float[Array, "B"]]
"""(x, name of the random stream of its augmentation) -> scores."""


class Conditional(nn.Module):
    """A generator of z and a class, whose learned embedding, as long as z, is appended to z. Label -1 gives zeros."""

    generator: nn.Module
    num_classes: int

    @nn.compact
    def __call__(self, z: Float[Array, "B d"], label: Int[Array, "B"]) -> Float[Array, "B ..."]:
        embed = Dense(z.shape[-1], use_bias=False, kernel_init=nn.initializers.normal(1.0), name="embedding")
        return self.generator(jnp.concatenate([z, embed(jax.nn.one_hot(label, self.num_classes))], axis=-1))


class Augmentation(NamedTuple):
    """One of augmentation.MODES; `target` and `images` are ADA's, as in `augmentation.adapted`."""

    mode: str
    target: float = 0.0
    images: int = 1


class Nets(NamedTuple):
    """The two networks. Where data lie in [0, 1] both work on [-1, 1]: samples pass a tanh, the critic's input is
    rescaled. `num_classes` is 0 for a model without labels."""

    critic: nn.Module
    generator: nn.Module
    latent_dim: int
    num_classes: int
    bounded: bool
    spectral_norm: bool
    augmentation: Augmentation

    def init(self, key: Key[Array, ""], batch: Batch) -> tuple[Params, Extra]:
        critic_key, generator_key, vectors_key = jax.random.split(key, 3)
        z, label = jnp.zeros((1, self.latent_dim)), jnp.zeros(1, jnp.int32)
        params = {
            CRITIC: self.critic.init(critic_key, batch["x"][:1])["params"],
            GENERATOR: self.generator.init(generator_key, *((z, label) if self.num_classes else (z,)))["params"],
        }
        extra: dict[str, Any] = {}
        if self.spectral_norm:
            extra["spectral_norm"] = spectral_norm.init(vectors_key, params[CRITIC])
        if self.augmentation.mode == "ada":
            extra["augment_probability"] = jnp.zeros(())
        return params, {CRITIC: extra} if extra else {}

    def labels(self, batch: Batch) -> Labels:
        return batch["label"] if self.num_classes else None

    def generate(self, params: Params, z: Float[Array, "B d"], label: Labels) -> Float[Array, "B ..."]:
        x = self.generator.apply({"params": params[GENERATOR]}, *((z, label) if self.num_classes else (z,)))
        return 0.5 * (jnp.tanh(x) + 1.0) if self.bounded else x

    def sample(self, params: Params, keys: Key[Array, "B"], label: Labels) -> Float[Array, "B ..."]:
        return self.generate(params, rng.normal(keys, self.latent_dim), label)

    def judge(self, params: Params, extra: Extra, label: Labels, context: Context) -> tuple[Judge, Extra]:
        """The critic, normalised, behind its augmentations; and `extra` after a round of the power iteration."""
        weights, probability = params[CRITIC], 1.0
        if self.spectral_norm:
            weights, vectors = spectral_norm.normalise(weights, extra[CRITIC]["spectral_norm"])
            extra = {**extra, CRITIC: {**extra[CRITIC], "spectral_norm": vectors}}
        if self.augmentation.mode == "ada":
            probability = extra[CRITIC]["augment_probability"]

        def score(x: Float[Array, "B ..."], stream: str) -> Float[Array, "B"]:
            x = 2.0 * x - 1.0 if self.bounded else x
            if context.train and self.augmentation.mode != "none":
                x = augmentation.augment(x, context.keys(f"augment_{stream}"), probability)
            heads = self.critic.apply({"params": weights}, x)
            scores = heads["score"][:, 0]
            if self.num_classes:
                scores += jnp.sum(heads["projection"] * jax.nn.one_hot(label, self.num_classes), axis=1)
            return scores

        return score, extra

    def adapt(self, extra: Extra, real: Float[Array, "B"], context: Context) -> Extra:
        """ADA: the augmentations' probability after a batch whose real images had these scores."""
        if self.augmentation.mode != "ada":
            return extra
        signs = context.gather(jnp.sign(jax.lax.stop_gradient(real)))
        probability = augmentation.adapted(
            extra[CRITIC]["augment_probability"], signs, self.augmentation.target, self.augmentation.images
        )
        return {**extra, CRITIC: {**extra[CRITIC], "augment_probability": probability}}


def _terms(losses: adversarial.Adversarial, real: Float[Array, "B"], fake: Float[Array, "B"]) -> dict[str, Array]:
    return {
        "adversarial": losses.critic(real, fake),
        "accuracy": (real > fake).astype(jnp.float32),
        "score_real": real,
        "score_fake": fake,
    }


def _critic_loss(nets: Nets, losses: adversarial.Adversarial, penalties: tuple[str, ...]) -> LossFn:
    def loss(params: Params, extra: Extra, batch: Batch, context: Context) -> Loss:
        real, label = batch["x"], nets.labels(batch)
        fake = nets.sample(params, context.keys("noise"), label)
        score, extra = nets.judge(params, extra, label, context)
        on_real, on_fake, between = (lambda x, s=s: score(x, s) for s in ("real", "fake", "between"))
        terms = _terms(losses, on_real(real), on_fake(fake))
        measured = {
            "r1": lambda: adversarial.squared_gradient(on_real, real),
            "r2": lambda: adversarial.squared_gradient(on_fake, fake),
            "gradient_penalty": lambda: adversarial.gradient_penalty(
                between, real, fake, context.keys("interpolation")
            ),
        }
        objective = jnp.mean(terms["adversarial"])
        for penalty in penalties:
            terms[penalty] = measured[penalty]()
            objective += context.hparams[CRITIC][penalty] * jnp.mean(terms[penalty])
        extra = nets.adapt(extra, terms["score_real"], context)
        if nets.augmentation.mode == "ada":
            probability = extra[CRITIC]["augment_probability"]
            terms["augment_probability"] = jnp.full(real.shape[0], probability)
        return Loss(objective, terms, extra)

    return loss


def _generator_loss(nets: Nets, losses: adversarial.Adversarial) -> LossFn:
    def loss(params: Params, extra: Extra, batch: Batch, context: Context) -> Loss:
        label = nets.labels(batch)
        fake = nets.sample(params, context.keys("noise"), label)
        score, _ = nets.judge(params, extra, label, context)
        centre = context.mean(jnp.mean(fake, axis=0))
        spread = jnp.sqrt(context.mean(jnp.mean((fake - centre) ** 2, axis=0)))
        terms = {
            "adversarial": losses.generator(score(batch["x"], "real"), score(fake, "fake")),
            # A generator that gives the same sample again and again shows here first.
            "diversity": jnp.full(fake.shape[0], jnp.mean(spread)),
        }
        return Loss(jnp.mean(terms["adversarial"]), terms, extra)

    return loss


def build(section: config.Section, spec: DataSpec) -> Model:
    """Builds the GAN that the config section `model` describes.

    `sample` takes `condition`, one class a sample (None: uniform draws, from each sample's own key), `temperature`,
    which scales z, and `truncation`, beyond which z is drawn again (Brock et al. 2019, arXiv 1809.11096, section 3.1).
    `encode` searches (adversarial/inversion.py) and needs model.inversion.steps. Raises UserError for unknown names,
    shapes that the nets cannot take and combinations that make no sense.
    """
    nets, inversion, penalties = _nets(section, spec), _inversion(section), _penalties(section)
    losses = adversarial.LOSSES[section.loss]

    def terms(params: Params, extra: Extra, batch: Batch, context: Context) -> dict[str, Float[Array, "B"]]:
        label = nets.labels(batch)
        score, _ = nets.judge(params, extra, label, context)
        fake = nets.sample(params, context.keys("noise"), label)
        return _terms(losses, score(batch["x"], "real"), score(fake, "fake"))

    @partial(jax.jit, static_argnames=("temperature", "truncation"))
    def sample(
        params: Params,
        extra: Extra,
        keys: Key[Array, "N"],
        condition: Int[Array, "N"] | None = None,
        *,
        temperature: float = 1.0,
        truncation: float | None = None,
    ) -> Float[Array, "N ..."]:
        if condition is not None and not nets.num_classes:
            raise UserError("model.conditional=False: samples of one class need a model trained with True.")
        if condition is None and nets.num_classes:
            condition = rng.classes(keys, nets.num_classes)
        z = rng.normal(keys, nets.latent_dim) if truncation is None else _truncated(keys, nets.latent_dim, truncation)
        return nets.generate(params, temperature * z, condition)

    def decode(params: Params, extra: Extra, z: Float[Array, "B d"]) -> Float[Array, "B ..."]:
        return nets.generate(params, z, None)

    def encode(params: Params, extra: Extra, x: Float[Array, "B ..."], keys: Key[Array, "B"]) -> Latent:
        return invert(lambda z: nets.generate(params, z, None), x, keys, nets.latent_dim, inversion)

    players = (
        Player(CRITIC, (CRITIC,), _critic_loss(nets, losses, penalties)),
        Player(GENERATOR, (GENERATOR,), _generator_loss(nets, losses), every=section.critic_steps),
    )
    return Model(
        init=nets.init,
        players=players,
        terms=terms,
        sample=sample,
        encode=encode if inversion.steps else None,
        # An image of a conditional model is no function of z alone.
        decode=None if nets.num_classes else decode,
        classes=nets.num_classes,
    )


def _truncated(keys: Key[Array, "N"], latent_dim: int, bound: float) -> Float[Array, "N d"]:
    """Normal draws, drawn again where they fall outside +-bound."""
    if bound <= 0:
        raise UserError(f"--truncation={bound} must be positive: the largest absolute value in z.")
    return jax.vmap(lambda key: jax.random.truncated_normal(key, -bound, bound, (latent_dim,)))(keys)


def _nets(section: config.Section, spec: DataSpec) -> Nets:
    for key in ("latent_dim", "critic_steps"):
        if section[key] < 1:
            raise UserError(f"model.{key}={section[key]} must be at least 1.")
    if section.conditional and not spec.num_classes:
        raise UserError(
            f"model.conditional=True needs labels, and data.name={spec.name!r} has none: set model.conditional=False."
        )
    num_classes = spec.num_classes if section.conditional else 0
    # <embedding of y, features>, the projection of Miyato & Koyama (2018, arXiv 1802.05637, eq. 6), is output y of a
    # linear head on the features; the head's bias is a score of the class alone.
    heads = (("score", 1), ("projection", num_classes)) if num_classes else (("score", 1),)
    make_critic = config.select("latent.nets", section.net.name, "critic", "model.net.name")
    make_generator = config.select("latent.nets", section.net.name, "generator", "model.net.name")
    generator = make_generator(section.net, spec.shape)
    return Nets(
        critic=make_critic(section.net, spec.shape, heads),
        generator=Conditional(generator, num_classes) if num_classes else generator,
        latent_dim=section.latent_dim,
        num_classes=num_classes,
        bounded=spec.support != "real",
        spectral_norm=section.spectral_norm,
        augmentation=_augmentation(section, spec),
    )


def _augmentation(section: config.Section, spec: DataSpec) -> Augmentation:
    mode = section.augment
    if mode not in augmentation.MODES:
        raise unknown_name("model.augment", mode, augmentation.MODES)
    if mode != "none" and (len(spec.shape) != 3 or spec.support == "real"):
        raise UserError(f"model.augment={mode!r} is for images; data.name={spec.name!r} has examples of {spec.shape}.")
    if mode != "ada":
        return Augmentation(mode)
    if section.loss not in ANCHORED:
        raise UserError(
            f"model.augment='ada' reads the sign of scores, which means nothing with model.loss={section.loss!r}: "
            f"use one of {', '.join(ANCHORED)}, or model.augment='diffaugment'."
        )
    if not -1.0 < section.ada.target < 1.0 or section.ada.images < 1:
        raise UserError(
            f"model.ada.target={section.ada.target} must lie in (-1, 1), model.ada.images={section.ada.images} be "
            "at least 1."
        )
    return Augmentation(mode, section.ada.target, section.ada.images)


def _penalties(section: config.Section) -> tuple[str, ...]:
    if section.loss not in adversarial.LOSSES:
        raise unknown_name("model.loss", section.loss, adversarial.LOSSES)
    for penalty in section.penalties:
        if penalty not in PENALTIES:
            raise unknown_name("model.penalties", penalty, PENALTIES)
    if section.loss == "wasserstein" and not section.penalties and not section.spectral_norm:
        raise UserError(
            "model.loss='wasserstein' bounds nothing by itself: its scores grow without end. Set "
            "model.penalties=gradient_penalty (or r1, r2) or model.spectral_norm=True."
        )
    return tuple(section.penalties)


def _inversion(section: config.Section) -> Inversion:
    steps = section.inversion.steps
    if not steps:
        return Inversion(0, 1, 0.0)
    settings = Inversion(steps, section.inversion.restarts, section.inversion.learning_rate)
    if min(settings) <= 0:
        raise UserError(
            f"model.inversion={settings._asdict()} must be positive; only steps may be 0, which means no encode."
        )
    if section.conditional:
        raise UserError(
            f"model.inversion.steps={steps} searches z alone, but a model with model.conditional=True generates from z "
            "and a class: set steps to 0 or conditional to False."
        )
    return settings
