"""Diffusion in the latent space of a frozen first stage, or in pixels: one player, the denoiser.

Ho et al. 2020 (arXiv 2006.11239) and Rombach et al. 2022 (arXiv 2112.10752). Schedule, prediction, weighting, law of
training times, sampler, grid and guidance are independent axes of `latent/diffusion/`, named by the config. The first
stage's latents are normalised with the statistics it handed over; there is no scale factor to set by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from latent import config, loops, rng
from latent.diffusion import grids, predictions, sampling, schedules, times, weightings
from latent.diffusion.guidance import NULL, classifier_free, drop
from latent.errors import UserError, unknown_name
from latent.types import Batch, Context, DataSpec, Extra, Loss, Model, Params, Player

PLAYER, STAGE = "denoiser", "first_stage"


class Stage(NamedTuple):
    """The space that is diffused in: x -> z of about unit variance, and back."""

    shape: tuple[int, ...]
    encode: Callable[[Params, Extra, Array, Key[Array, "B"]], Array]
    decode: Callable[[Params, Extra, Array], Array]
    init: Callable[[Key[Array, ""], Batch], tuple[Params, Extra]]


def _pixels(spec: DataSpec) -> Stage:
    """The identity, from [0, 1] to [-1, 1] where data are bounded."""
    if spec.support == "real":
        same = lambda params, extra, x, *keys: x  # noqa: E731
        return Stage(spec.shape, same, same, lambda key, batch: ({}, {}))
    return Stage(
        spec.shape,
        lambda params, extra, x, keys: 2.0 * x - 1.0,
        lambda params, extra, z: jnp.clip(0.5 * (z + 1.0), 0.0, 1.0),
        lambda key, batch: ({}, {}),
    )


def _trained(described: config.Section, spec: DataSpec) -> Stage:
    """The autoencoder that another run trained, its latents normalised channel by channel."""
    build_model = config.select("latent.models", described.model.name, "build", "model.first_stage")
    model = build_model(config.Section(described.model.plain()), spec)
    statistics = described.statistics
    shape = tuple(statistics.shape)
    mean, std = jnp.asarray(statistics.mean, jnp.float32), jnp.asarray(statistics.std, jnp.float32)

    def encode(params: Params, extra: Extra, x: Float[Array, "B ..."], keys: Key[Array, "B"]) -> Float[Array, "B ..."]:
        return (model.encode(params[STAGE], extra[STAGE], x, keys).sample - mean) / std

    def decode(params: Params, extra: Extra, z: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
        return model.decode(params[STAGE], extra[STAGE], z * std + mean)

    def init(key: Key[Array, ""], batch: Batch) -> tuple[Params, Extra]:
        params, extra = model.init(key, batch)
        return {STAGE: params}, {STAGE: extra}

    return Stage(shape, encode, decode, init)


class Denoiser(NamedTuple):
    """The net and what its output means."""

    net: nn.Module
    path: schedules.Path
    prediction: predictions.Prediction
    self_conditioning: bool

    def output(self, params: Params, x: Array, t: Float[Array, "B"], label: Any, previous: Any) -> Array:
        """The net at x, scaled to unit variance."""
        scale = predictions.input_scale(self.path.alpha(t), self.path.sigma(t))
        return self.net.apply({"params": params[PLAYER]}, schedules.expand(scale, x) * x, t, label, previous)

    def __call__(
        self, params: Params, x: Array, t: Float[Array, "B"], label: Any, previous: Any = None
    ) -> predictions.Denoised:
        output = self.output(params, x, t, label, previous)
        return predictions.denoised(self.prediction, output, x, self.path.alpha(t), self.path.sigma(t))


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
    stage = _trained(section.first_stage_run, spec) if section.first_stage else _pixels(spec)
    if section.conditional and not spec.num_classes:
        raise UserError(f"model.conditional=True needs classes, which data.name={spec.name!r} has not.")
    classes = spec.num_classes if section.conditional else 0
    path = _made(schedules.SCHEDULES, section.schedule, "model.schedule")
    law = _made(times.TIMES, section.times, "model.times")
    weighting = _named(weightings.WEIGHTINGS, section.weighting.name, "model.weighting.name")
    weighting_options = section.weighting.options.plain()
    net = config.select("latent.nets", section.net.name, "denoiser", "model.net.name")(
        section.net, stage.shape, classes
    )
    prediction = predictions.find(section.prediction, path, "model.prediction")
    denoiser = Denoiser(net, path, prediction, section.net.self_conditioning)
    sample = _sampler(section, denoiser, stage, classes)

    def init(key: Key[Array, ""], batch: Batch) -> tuple[Params, Extra]:
        params, extra = stage.init(jax.random.fold_in(key, 1), batch)
        z, t = jnp.zeros((1, *stage.shape)), jnp.ones(1)
        return params | {PLAYER: net.init(key, z, t, jnp.zeros(1, jnp.int32) if classes else None)["params"]}, extra

    def errors(
        params: Params, extra: Extra, batch: Batch, context: Context, label: Any
    ) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
        """The weighted and the plain squared error of the net's output, averaged over z."""
        keys = context.keys
        z = jax.lax.stop_gradient(stage.encode(params, extra, batch["x"], keys("posterior")))
        size = len(context.gather(batch["position"]))
        t = law.draw(path, keys("time"), batch["position"], size)
        eps = jax.vmap(lambda key: jax.random.normal(key, stage.shape))(keys("noise"))
        x = schedules.perturb(path, z, eps, t)
        previous = None
        if denoiser.self_conditioning:
            told = jax.lax.stop_gradient(denoiser(params, x, t, label).x0)
            coin = jax.vmap(jax.random.bernoulli)(keys("self_conditioning"))
            previous = jnp.where(schedules.expand(coin.astype(z.dtype), z) > 0, told, 0.0)
        target = predictions.target(prediction, z, eps, path.alpha(t), path.sigma(t))
        squared = (denoiser.output(params, x, t, label, previous) - target) ** 2
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


def _sampler(section: config.Section, denoiser: Denoiser, stage: Stage, classes: int) -> Callable[..., Array]:
    """The family's sample function; its options default to the config section `model.sampling`."""
    defaults = section.sampling.plain()

    def sample(
        params: Params,
        extra: Extra,
        keys: Key[Array, "N"],
        condition: Int[Array, "N"] | None = None,
        *,
        sampler: str = defaults["sampler"],
        steps: int = defaults["steps"],
        guidance: float = defaults["guidance"],
        grid: str = defaults["grid"],
    ) -> Float[Array, "N ..."]:
        if condition is not None and not classes:
            raise UserError("model.conditional=False: samples of one class need a model trained with True.")
        if guidance != 1.0 and not classes:
            raise UserError(f"--guidance={guidance} needs a model that was trained with model.conditional=True.")
        times_asked = _named(grids.GRIDS, grid, "--grid")(denoiser.path, steps)
        options = defaults["options"] if sampler == defaults["sampler"] else {}
        make = config.select("latent.diffusion.samplers", sampler, "sampler", "--sampler")
        walk = make(denoiser.path, times_asked, **options)
        label = rng.classes(keys, classes) if classes and condition is None else condition

        def estimate(params: Params, x: Array, t: Array, previous: Any = None) -> predictions.Denoised:
            return _guided(denoiser, params, x, jnp.full(len(x), t), label, previous, guidance)

        walk = sampling.self_conditioned(walk) if denoiser.self_conditioning else walk
        start = sampling.start(keys, stage.shape, schedules.prior_scale(denoiser.path, times_asked[0]))
        # On CPU convolutions must not be in a loop: the steps are written out, and take that much longer to compile.
        unroll = 1 if loops.rollable(estimate, params, start, times_asked[0]) else walk.num_steps
        z = sampling.runner(walk, estimate, unroll=unroll)(params, start, keys)
        return stage.decode(params, extra, z)

    return sample


def _guided(
    denoiser: Denoiser, params: Params, x: Array, t: Array, label: Any, previous: Any, scale: float
) -> predictions.Denoised:
    """Classifier-free guidance with both questions in one batch; scale 1 and 0 ask only one."""
    if label is None or scale == 1.0:
        return denoiser(params, x, t, label, previous)
    null = jnp.full(len(x), NULL)
    if scale == 0.0:
        return denoiser(params, x, t, null, previous)
    twice = lambda a: None if a is None else jnp.concatenate([a, a])  # noqa: E731
    both = denoiser(params, twice(x), twice(t), jnp.concatenate([label, null]), twice(previous))
    half = lambda start: predictions.Denoised(*(a[start : start + len(x)] for a in both[:2]))  # noqa: E731
    return classifier_free(half(0), half(len(x)), scale)
