"""Critics that shape an autoencoder: of its code's independence, of its code's distribution, of its images.

An adversary is a critic net, what the autoencoder pays to it, and what the critic itself minimises. The critic is a
player of its own; its params are the component "critic".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent import config
from latent.adversarial import losses as adversarial
from latent.autoencoding.contract import flat
from latent.autoencoding.penalties import Scope, Terms, own_place
from latent.errors import UserError, unknown_name
from latent.types import DataSpec, Params

CRITIC = "critic"


class Adversary(NamedTuple):
    """A critic and both sides of its game.

    net      the critic; `sees` is the shape of what it judges
    deceive  (scope, reconstruction [B, ...]) -> terms that the autoencoder minimises
    judge    (scope, reconstruction [B, ...]) -> terms that the critic minimises
    start    the step from which both count
    """

    net: nn.Module
    sees: tuple[int, ...]
    deceive: Callable[[Scope, Array], Terms]
    judge: Callable[[Scope, Array], Terms]
    start: int


def _mean_places(values: Float[Array, "B ..."]) -> Float[Array, "B"]:
    return jnp.mean(flat(values, 1), axis=1)


class _Critic(NamedTuple):
    """A critic net from `model.critic` and the loss of its game."""

    net: nn.Module
    losses: adversarial.Adversarial
    r1: bool

    def score(self, params: Params, x: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
        """The score of every example, or of every patch of it."""
        return self.net.apply({"params": params[CRITIC]}, x)["score"]

    def judge(self, params: Params, real: Float[Array, "B ..."], fake: Float[Array, "B ..."]) -> Terms:
        real_score, fake_score = self.score(params, real), self.score(params, fake)
        terms = {"adversarial": _mean_places(self.losses.critic(real_score, fake_score))}
        if self.r1:
            summed = lambda x: jnp.sum(flat(self.score(params, x), 1), axis=1)  # noqa: E731
            terms["r1"] = adversarial.squared_gradient(summed, real)
        return terms

    def deceive(self, params: Params, real: Float[Array, "B ..."], fake: Float[Array, "B ..."]) -> Float[Array, "B"]:
        return _mean_places(self.losses.generator(self.score(params, real), self.score(params, fake)))


def _critic(section: Any, shape: tuple[int, ...]) -> _Critic:
    options = section.critic
    if options.loss not in adversarial.LOSSES:
        raise unknown_name("model.critic.loss", options.loss, adversarial.LOSSES)
    make = config.select("latent.nets", options.net.name, "critic", "model.critic.net.name")
    return _Critic(make(options.net, shape), adversarial.LOSSES[options.loss], options.r1)


def permuted(scope: Scope, z: Float[Array, "B d"]) -> Float[Array, "B d"]:
    """z with every dimension shuffled by itself over the global batch: draws from prod_j q(z_j)."""
    draws = jax.vmap(lambda key: jax.random.uniform(key, z.shape[1:]))(scope.context.keys("permutation"))
    everything, draws = scope.context.gather((z, draws))
    shuffled = jnp.take_along_axis(everything, jnp.argsort(draws, axis=0), axis=0)
    return shuffled[jnp.argmax(own_place(scope.batch, scope.context), axis=1)]


def _factor(section: Any, spec: DataSpec, latent_shape: tuple[int, ...]) -> tuple[Any, ...]:
    """FactorVAE: a critic tells q(z) from prod_j q(z_j); its logit is log of their ratio, whose mean under q is the
    total correlation (Kim & Mnih 2018, arXiv 1802.05983, eq. 3). Of `model.critic` it reads the net."""
    shape = (math.prod(latent_shape),)
    options = section.critic
    net = config.select("latent.nets", options.net.name, "critic", "model.critic.net.name")(options.net, shape)
    critic = _Critic(net, adversarial.LOSSES["non_saturating"], False)

    def deceive(scope: Scope, reconstruction: Array) -> Terms:
        return {"adversarial": critic.score(scope.params, flat(scope.code.samples[:, 0], 1))[:, 0]}

    def judge(scope: Scope, reconstruction: Array) -> Terms:
        z = flat(scope.code.samples[:, 0], 1)
        terms = critic.judge(scope.params, z, permuted(scope, z))
        return {"adversarial": 0.5 * terms["adversarial"]}  # the mean over both classes, as in the paper

    return net, shape, deceive, judge


def _latent(section: Any, spec: DataSpec, latent_shape: tuple[int, ...]) -> tuple[Any, ...]:
    """The adversarial autoencoder: a critic tells codes from draws of the prior (Makhzani et al. 2016, arXiv
    1511.05644)."""
    shape = (math.prod(latent_shape),)
    critic = _critic(section, shape)

    def both(scope: Scope) -> tuple[Array, Array]:
        drawn = scope.prior.sample(scope.params, scope.context.keys("prior"))
        return flat(drawn, 1), flat(scope.code.samples[:, 0], 1)

    def deceive(scope: Scope, reconstruction: Array) -> Terms:
        return {"adversarial": critic.deceive(scope.params, *both(scope))}

    return critic.net, shape, deceive, lambda scope, _: critic.judge(scope.params, *both(scope))


def _image(section: Any, spec: DataSpec, latent_shape: tuple[int, ...]) -> tuple[Any, ...]:
    """A critic tells images from reconstructions, and with `critic.samples` from decoded prior draws too (VAE-GAN,
    Larsen et al. 2016, arXiv 1512.09300; VQGAN, Esser et al. 2021, arXiv 2012.09841).

    With `critic.feature_matching` the autoencoder also pays the squared difference of the critic's hidden layers,
    averaged over them: the learned similarity of VAE-GAN.
    """
    critic = _critic(section, spec.shape)
    samples, matching = section.critic.samples, section.critic.feature_matching
    centred = (lambda x: x) if spec.support == "real" else (lambda x: 2.0 * x - 1.0)

    def fakes(scope: Scope, reconstruction: Array) -> list[Array]:
        if not samples:
            return [centred(reconstruction)]
        drawn = scope.prior.sample(scope.params, scope.context.keys("prior"))
        return [centred(reconstruction), centred(scope.decode(drawn))]

    def mean(terms: list[Any]) -> Any:
        return jax.tree.map(lambda *values: sum(values) / len(values), *terms)

    def hidden(params: Params, x: Array) -> list[Array]:
        _, found = critic.net.apply(
            {"params": params[CRITIC]},
            x,
            capture_intermediates=lambda module, _: module.name is not None and module.name != "score",
        )
        return jax.tree.leaves(found)

    def deceive(scope: Scope, reconstruction: Array) -> Terms:
        real = centred(scope.batch["x"])
        terms = {"adversarial": mean([critic.deceive(scope.params, real, f) for f in fakes(scope, reconstruction)])}
        if matching:
            pairs = zip(hidden(scope.params, real), hidden(scope.params, centred(reconstruction)), strict=True)
            terms["feature_matching"] = mean([_mean_places((a - b) ** 2) for a, b in pairs])
        return terms

    def judge(scope: Scope, reconstruction: Array) -> Terms:
        real = centred(scope.batch["x"])
        return mean([critic.judge(scope.params, real, fake) for fake in fakes(scope, reconstruction)])

    return critic.net, spec.shape, deceive, judge


ADVERSARIES = {"factor": _factor, "latent": _latent, "image": _image}


def make(section: Any, spec: DataSpec, latent_shape: tuple[int, ...], has_density: bool) -> Adversary | None:
    """Builds `model.adversary`: factor | latent | image, or None for "none"."""
    name = section.adversary
    if name == "none":
        return None
    if name not in ADVERSARIES:
        raise unknown_name("model.adversary", name, ["none", *ADVERSARIES])
    if name == "factor" and not has_density:
        raise UserError(
            f"model.adversary='factor' judges draws from a posterior, and model.bottleneck={section.bottleneck!r} has "
            "none: set model.bottleneck=gaussian."
        )
    if section.critic.start < 0:
        raise UserError(f"model.critic.start={section.critic.start} must not be negative.")
    return Adversary(*ADVERSARIES[name](section, spec, latent_shape), start=section.critic.start)
