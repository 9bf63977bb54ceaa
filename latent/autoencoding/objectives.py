"""What the autoencoder's players minimise: the bounds, what the config adds to them, and the critic's side.

The sum is reconstruction + rate + hparams[term] * term over penalties, perceptual distance and adversary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent import config
from latent.autoencoding import adversaries, penalties, perceptual, rates
from latent.autoencoding.autoencoder import Autoencoder
from latent.autoencoding.contract import Code
from latent.errors import UserError, unknown_name
from latent.types import Batch, Context, DataSpec, Extra, Loss, LossFn, Params

PLAYER = "autoencoder"
CRITIC = adversaries.CRITIC


class Objective(NamedTuple):
    """What the autoencoder's loss adds up, besides the reconstruction."""

    num_samples: int
    rate: rates.Rate | None
    penalties: tuple[penalties.Penalty, ...]
    adversary: adversaries.Adversary | None
    perceptual: perceptual.Distance | None
    adaptive: bool
    size: int


def _scope(
    parts: Autoencoder, objective: Objective, params: Params, batch: Batch, code: Code, context: Context
) -> penalties.Scope:
    decode = lambda z: parts.likelihood.mean(parts.decode(params, z))  # noqa: E731
    return penalties.Scope(params, batch, code, decode, parts.prior, context, objective.size)


def _autoencoder_loss(parts: Autoencoder, objective: Objective) -> LossFn:
    """Minimises reconstruction + rate + sum of hparams[term] * term over everything the config added."""
    adversary = objective.adversary

    def loss(params: Params, extra: Extra, batch: Batch, context: Context) -> Loss:
        hparams, x = context.hparams[PLAYER], batch["x"]
        code = parts.encode(params, extra, x, context.keys("posterior"), objective.num_samples)
        terms, dimensions, output = parts.terms(params, x, code)
        total = hparams["reconstruction"] * jnp.mean(terms["reconstruction"])
        if objective.rate is not None:
            total += objective.rate(terms["kl"], dimensions, context, hparams)
        scope = _scope(parts, objective, params, batch, code, context)
        added = dict(code.losses)
        for penalty in objective.penalties:
            added |= penalty(scope)
        reconstruction = parts.likelihood.mean(output[:, 0])
        if objective.perceptual is not None:
            added["perceptual"] = objective.perceptual(x, reconstruction)
        total += sum(hparams[name] * jnp.mean(term) for name, term in added.items())
        if adversary is not None:
            game = adversary.deceive(scope, reconstruction)
            scale = jnp.where(context.step >= adversary.start, 1.0, 0.0)
            if objective.adaptive:
                scale *= _adaptive_weight(parts, objective, params, batch, code, context)
                added["adaptive_weight"] = jnp.full(len(x), scale)
            total += scale * sum(hparams[name] * jnp.mean(term) for name, term in game.items())
            added |= game
        extra, learnt = parts.bottleneck.learn(extra, code, context)
        return Loss(total, {**terms, **added, **learnt}, extra)

    return loss


def _adaptive_weight(
    parts: Autoencoder, objective: Objective, params: Params, batch: Batch, code: Code, context: Context
) -> Float[Array, ""]:
    """|gradient of the reconstruction| / |gradient of the adversarial term| at the decoder's last layer (Esser et al.
    2021, arXiv 2012.09841, eq. 7), over the global batch."""
    net, hparams = params["decoder"]["net"], context.hparams[PLAYER]
    z = code.samples[:, 0]
    output, pull = jax.vjp(lambda last: parts.decoder.apply({"params": {**net, "output": last}}, z), net["output"])
    scope = _scope(parts, objective, params, batch, code, context)

    def fidelity(output: Float[Array, "B ..."]) -> Float[Array, ""]:
        log_prob = parts.likelihood.log_prob(output, batch["x"], params["decoder"].get("log_scale", 0.0))
        total = -hparams["reconstruction"] * jnp.mean(log_prob)
        if objective.perceptual is not None:
            total += hparams["perceptual"] * jnp.mean(objective.perceptual(batch["x"], parts.likelihood.mean(output)))
        return total

    def game(output: Float[Array, "B ..."]) -> Float[Array, ""]:
        return jnp.mean(objective.adversary.deceive(scope, parts.likelihood.mean(output))["adversarial"])

    def norm(function: Callable[[Array], Array]) -> Float[Array, ""]:
        (gradient,) = pull(jax.grad(function)(output))
        return jnp.sqrt(jnp.sum(context.mean(gradient["kernel"]) ** 2))

    return jax.lax.stop_gradient(jnp.clip(norm(fidelity) / (norm(game) + 1e-4), 0.0, 1e4))


def _critic_loss(parts: Autoencoder, objective: Objective) -> LossFn:
    """The critic's side of the game: nothing before the adversary's start."""
    adversary = objective.adversary

    def loss(params: Params, extra: Extra, batch: Batch, context: Context) -> Loss:
        code = parts.encode(params, extra, batch["x"], context.keys("posterior"))
        reconstruction = parts.likelihood.mean(parts.decode(params, code.samples[:, 0]))
        terms = adversary.judge(_scope(parts, objective, params, batch, code, context), reconstruction)
        started = jnp.where(context.step >= adversary.start, 1.0, 0.0)
        weights = {name: 1.0 if name == "adversarial" else context.hparams[CRITIC][name] for name in terms}
        return Loss(started * sum(weights[name] * jnp.mean(term) for name, term in terms.items()), terms, extra)

    return loss


def _iwae_loss(parts: Autoencoder, num_samples: int) -> LossFn:
    """Minimises -log 1/K sum_k w_k (Burda et al. 2016, arXiv 1509.00519, eq. 8)."""

    def loss(params: Params, extra: Extra, batch: Batch, context: Context) -> Loss:
        code = parts.encode(params, extra, batch["x"], context.keys("posterior"), num_samples)
        log_weights = parts.weigh(params, batch["x"], code)
        bound = jax.nn.logsumexp(log_weights, axis=1) - math.log(num_samples)
        kl, _ = parts.kl(params, code)
        elbo = jnp.mean(log_weights, axis=1)
        terms = {"iwae": bound, "elbo": elbo, "kl": kl, "reconstruction": -elbo - kl}
        return Loss(-jnp.mean(bound), terms, extra)

    return loss


def _objective(section: config.Section, spec: DataSpec, parts: Autoencoder) -> Objective:
    adversary = adversaries.make(section, spec, parts.latent_shape, parts.has_density)
    adaptive = section.adaptive_weight
    if adaptive and section.adversary != "image":
        raise UserError(
            f"model.adaptive_weight=True needs an image critic: set model.adversary=image (now {section.adversary!r})."
        )
    return Objective(
        num_samples=section.num_samples,
        rate=rates.make(section, parts.has_density, parts.prior.kl is not None),
        penalties=penalties.make(section, parts.has_density),
        adversary=adversary,
        perceptual=perceptual.make(section.perceptual, spec) if section.perceptual else None,
        adaptive=adaptive,
        size=spec.size,
    )


def make(
    section: config.Section, spec: DataSpec, parts: Autoencoder
) -> tuple[dict[str, LossFn], adversaries.Adversary | None]:
    """The loss of every player that the config section `model` asks for, and the adversary where there is one."""
    if section.num_samples < 1:
        raise UserError(f"model.num_samples={section.num_samples} must be at least 1.")
    if not parts.has_density and (section.objective != "elbo" or section.num_samples > 1):
        raise UserError(
            f"model.objective={section.objective!r} with model.num_samples={section.num_samples} needs draws from a "
            f"posterior, which model.bottleneck={section.bottleneck!r} has not: set model.bottleneck=gaussian, or "
            "objective=elbo and num_samples=1."
        )
    if section.objective == "iwae":
        return {PLAYER: _iwae_loss(parts, section.num_samples)}, None
    if section.objective != "elbo":
        raise unknown_name("model.objective", section.objective, ("elbo", "iwae"))
    objective = _objective(section, spec, parts)
    losses: dict[str, LossFn] = {PLAYER: _autoencoder_loss(parts, objective)}
    if objective.adversary is not None:
        losses[CRITIC] = _critic_loss(parts, objective)
    return losses, objective.adversary
