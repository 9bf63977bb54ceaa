"""Diffusion in the latent space of a frozen first stage, or in pixels: one player, the denoiser.

Ho et al. 2020 (arXiv 2006.11239) and Rombach et al. 2022 (arXiv 2112.10752). Schedule, prediction, weighting, law of
training times, sampler, grid and guidance are independent axes of `latent/diffusion/`, named by the config. The first
stage's latents are normalised with the statistics it handed over; there is no scale factor to set by hand.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from latent import config
from latent.diffusion import generation, predictions, schedules, spaces, times, weightings
from latent.diffusion.denoiser import Denoiser
from latent.diffusion.guidance import drop
from latent.diffusion.spaces import STAGE
from latent.errors import UserError, unknown_name
from latent.types import Batch, Context, DataSpec, Extra, Loss, Model, Params, Player

PLAYER = "denoiser"


def _named(table: dict[str, Any], name: str, key: str) -> Any:
    if name not in table:
        raise unknown_name(key, name, table)
    return table[name]


def _made(table: dict[str, Any], section: config.Section, key: str, *given: Any) -> Any:
    """table[section.name](*given, **section.options), with wrong options told by key."""
    make = _named(table, section.name, f"{key}.name")
    options = section.options.plain()
    try:
        return make(*given, **options)
    except TypeError as error:
        raise UserError(f"{key}.options={options} do not fit {key}.name={section.name!r}: {error}.") from error


def build(section: config.Section, spec: DataSpec) -> Model:
    """Builds the diffusion model that the config section `model` describes.

    Raises UserError for unknown names, options that do not fit them, a prediction that the schedule rules out, labels
    where the set has none, and nets that the latent's shape does not suit.
    """
    space = spaces.latents(section.first_stage_run, spec) if section.first_stage else spaces.pixels(spec)
    if section.conditional and not spec.num_classes:
        raise UserError(f"model.conditional=True needs classes, which data.name={spec.name!r} has not.")
    classes = spec.num_classes if section.conditional else 0
    path = _made(schedules.SCHEDULES, section.schedule, "model.schedule")
    law = _made(times.TIMES, section.times, "model.times")
    weighting = _named(weightings.WEIGHTINGS, section.weighting.name, "model.weighting.name")
    weighting_options = section.weighting.options.plain()
    net = config.select("latent.nets", section.net.name, "denoiser", "model.net.name")(
        section.net, space.shape, classes
    )
    prediction = predictions.find(section.prediction, path, "model.prediction")
    denoiser = Denoiser(net, path, prediction, section.net.self_conditioning)
    sample = generation.sampler(denoiser, PLAYER, space, classes, section.sampling.plain())

    def init(key: Key[Array, ""], batch: Batch) -> tuple[Params, Extra]:
        params, extra = space.init(jax.random.fold_in(key, 1), batch)
        z, t = jnp.zeros((1, *space.shape)), jnp.ones(1)
        return params | {PLAYER: net.init(key, z, t, jnp.zeros(1, jnp.int32) if classes else None)["params"]}, extra

    def errors(
        params: Params, extra: Extra, batch: Batch, context: Context, label: Any
    ) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
        """The weighted and the plain squared error of the net's output, averaged over z."""
        keys = context.keys
        z = jax.lax.stop_gradient(space.encode(params, extra, batch["x"], keys("posterior")))
        size = len(context.gather(batch["position"]))
        t = law.draw(path, keys("time"), batch["position"], size)
        eps = jax.vmap(lambda key: jax.random.normal(key, space.shape))(keys("noise"))
        x = schedules.perturb(path, z, eps, t)
        previous = None
        if denoiser.self_conditioning:
            told = jax.lax.stop_gradient(denoiser(params[PLAYER], x, t, label).x0)
            coin = jax.vmap(jax.random.bernoulli)(keys("self_conditioning"))
            previous = jnp.where(schedules.expand(coin.astype(z.dtype), z) > 0, told, 0.0)
        target = predictions.target(prediction, z, eps, path.alpha(t), path.sigma(t))
        squared = (denoiser.output(params[PLAYER], x, t, label, previous) - target) ** 2
        plain = jnp.mean(squared.reshape(len(z), -1), axis=1)
        return weighting(path, prediction, t, **weighting_options) * plain, plain

    def loss(params: Params, extra: Extra, batch: Batch, context: Context) -> Loss:
        label = None
        if classes:
            label = drop(batch["label"], context.keys("drop"), context.hparams[PLAYER]["label_dropout"])
        weighted, plain = errors(params, extra, batch, context, label)
        return Loss(jnp.mean(weighted), {"weighted_error": weighted, "error": plain}, extra)

    def terms(params: Params, extra: Extra, batch: Batch, context: Context) -> dict[str, Float[Array, "B"]]:
        weighted, plain = errors(params, extra, batch, context, batch["label"] if classes else None)
        return {"weighted_error": weighted, "error": plain}

    return Model(
        init=init,
        players=(Player(PLAYER, (PLAYER,), loss),),
        terms=terms,
        sample=sample,
        classes=classes,
        loads=(STAGE,) if section.first_stage else (),
    )
