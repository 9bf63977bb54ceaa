"""Diffusion in the latent space of a frozen first stage, or in pixels: one player, the denoiser.

Ho et al. 2020 (arXiv 2006.11239) and Rombach et al. 2022 (arXiv 2112.10752). Schedule, prediction, weighting, law of
training times, sampler, grid and guidance are independent axes of `latent/diffusion/`, named by the config. The first
stage's latents are normalised with the statistics it handed over; there is no scale factor to set by hand.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from latent import config, first_stage
from latent.diffusion import (
    densities,
    edits,
    generation,
    learned_variance,
    paths,
    predictions,
    schedules,
    spaces,
    times,
    weightings,
)
from latent.diffusion.denoiser import CLASSIFIER, DENOISER, WEAK, Denoiser, Guides
from latent.diffusion.guidance import drop
from latent.diffusion.paths import PATH
from latent.errors import UserError, unknown_name
from latent.types import Batch, Condition, Context, DataSpec, Extra, Loss, Model, Params, Player


def _made(table: dict[str, Any], section: config.Section, key: str) -> Any:
    """table[section.name](**section.options), with wrong options told by key."""
    options = section.options.plain()
    if section.name not in table:
        raise unknown_name(f"{key}.name", section.name, table)
    try:
        return table[section.name](**options)
    except UserError as error:
        raise UserError(f"{key}.options={options}: {error}") from error
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f"{key}.options={options} do not fit {key}.name={section.name!r}: {error}.") from error


def build(section: config.Section, spec: DataSpec) -> Model:
    """Builds the diffusion model that the config section `model` describes.

    Raises UserError for unknown names, options that do not fit them, a prediction that the schedule rules out, labels
    or text where the set has none, nets that the latent's shape does not suit, and runs that do not fit this one.
    """
    space = _space(section, spec)
    denoiser = _denoiser(section, space, spec)
    guides = Guides(_weak(section, space, spec), _classifier(section, space, spec))
    labelled = denoiser.conditional or guides.log_prob is not None
    schedule = denoiser.schedule
    law = _made(times.TIMES, section.times, "model.times")
    judged = partial(_judged, denoiser, _made(weightings.WEIGHTINGS, section.weighting, "model.weighting"))
    if schedule.init is not None:
        _check_learned(section)
    classes = spec.num_classes if labelled else 0
    generator = generation.Generator(denoiser, guides, space, classes, section.sampling.plain())
    generator.check()
    loads = tuple(name for name in first_stage.COMPONENTS if section[name])

    def init(key: Key[Array, ""], batch: Batch) -> tuple[Params, Extra]:
        params, extra = space.init(jax.random.fold_in(key, 1), batch)
        params |= _params(denoiser, space, key)
        if guides.weak is not None:
            params[WEAK], extra[WEAK] = _params(guides.weak, space, key), {}
        if guides.log_prob is not None:
            params[CLASSIFIER], extra[CLASSIFIER] = _other(section, CLASSIFIER, spec).init(key, batch)
        return params, extra

    def errors(
        params: Params, extra: Extra, batch: Batch, context: Context, told: Condition
    ) -> dict[str, Float[Array, "B"]]:
        """`_judged` of the batch, each example noised to a time of its own."""
        keys = context.keys
        if "codes" in batch:
            z = space.from_codes(batch["codes"], keys("posterior"))
        else:
            z = jax.lax.stop_gradient(space.encode(params, extra, batch["x"], keys("posterior")))
        path = schedule.of(params)
        t = law.draw(path, keys("time"), batch["position"], context.batch_size)
        eps = jax.vmap(lambda key: jax.random.normal(key, space.shape))(keys("noise"))
        coin = jax.vmap(jax.random.bernoulli)(keys("self_conditioning")) if denoiser.self_conditioning else None
        weighted, found = schedule.errors(judged, path, params[DENOISER], t, (z, eps, told, coin))
        return {"weighted_error": weighted, **found}

    def loss(params: Params, extra: Extra, batch: Batch, context: Context) -> Loss:
        told, rates = denoiser.told_of(batch), context.hparams[DENOISER]
        # A coin for each, so that either may be told alone and guidance finds what neither is.
        if told.label is not None:
            told = told._replace(label=drop(told.label, context.keys("drop"), rates["label_dropout"]))
        if told.text is not None:
            told = told._replace(text=drop(told.text, context.keys("drop_text"), rates["text_dropout"]))
        found = errors(params, extra, batch, context, told)
        objective = found["weighted_error"]
        if denoiser.learns_variance:
            # lambda L_vlb with lambda = 0.001 and L_vlb = T E_t[L_t] (section 3.4, and the published code's bits).
            objective = objective + 1e-3 * schedule.at(None).num_timesteps * found["step_bits"]
        return Loss(jnp.mean(objective), found, extra)

    def terms(params: Params, extra: Extra, batch: Batch, context: Context) -> dict[str, Float[Array, "B"]]:
        return errors(params, extra, batch, context, denoiser.told_of(batch))

    return Model(
        init=init,
        players=(Player(DENOISER, (DENOISER,) if schedule.init is None else (DENOISER, PATH), loss),),
        terms=terms,
        sample=generation.sampler(generator),
        likelihoods=densities.likelihoods(generator, spec.support, bool(section.first_stage)),
        edits=edits.edits(generator),
        classes=classes,
        text=denoiser.reads_text,
        told=denoiser.parts,
        sample_prior=space.sample_prior,
        codes=space.codes,
        loads=loads,
    )


def _judged(
    denoiser: Denoiser,
    weighting: weightings.Weighting,
    path: schedules.Path,
    weights: Any,
    t: Float[Array, "B"],
    data: Any,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """The weighted squared error of the net's output, averaged over z; the plain one, and the bits of a step.

    `data` is (z, its noise, the condition, where the net is told its own first estimate or None).
    """
    z, eps, condition, coin = data
    x = schedules.perturb(path, z, eps, t)
    previous = None
    if coin is not None:
        told = jax.lax.stop_gradient(denoiser(path, weights, x, t, condition).x0)
        previous = jnp.where(schedules.expand(coin.astype(z.dtype), z) > 0, told, 0.0)
    prediction = denoiser.prediction
    target = predictions.target(prediction, z, eps, path.alpha(t), path.sigma(t))
    output, variance = denoiser.output(path, weights, x, t, condition, previous)
    plain = jnp.mean(((output - target) ** 2).reshape(len(z), -1), axis=1)
    found = {"error": plain}
    if variance is not None:
        estimate = predictions.denoised(prediction, output, x, path.alpha(t), path.sigma(t), variance)
        found["step_bits"] = learned_variance.step_bits(path, z, eps, estimate, t)
    return weighting(path, prediction, t) * plain, found


def _space(section: config.Section, spec: DataSpec) -> spaces.Space:
    if not section.first_stage:
        return spaces.pixels(spec)
    # Runs from before there was a choice have no such key.
    return spaces.latents(section.first_stage_run, spec, section.latents if "latents" in section else "sample")


def _denoiser(section: config.Section, space: spaces.Space, spec: DataSpec) -> Denoiser:
    if section.conditional and not spec.num_classes:
        raise UserError(f"model.conditional=True needs classes, which data.name={spec.name!r} has not.")
    reads_text = section.text if "text" in section else False  # runs from before there was a choice have no such key
    if reads_text and not spec.vocabulary:
        raise UserError(f"model.text=True needs captions, which data.name={spec.name!r} has not.")
    schedule = _made(paths.SCHEDULES, section.schedule, "model.schedule")
    path = schedule.at(None)  # for what is true of it whatever its parameters
    if section.learned_variance and path.num_timesteps is None:
        raise UserError(
            f"model.learned_variance=True needs a schedule of discrete steps, which {section.schedule.name!r} has not."
        )
    return Denoiser(
        net=config.select("latent.nets", section.net.name, "denoiser", "model.net.name")(
            section.net,
            space.shape,
            spec.num_classes if section.conditional else 0,
            outputs=1 + section.learned_variance,
            num_words=len(spec.vocabulary) if reads_text else 0,
        ),
        schedule=schedule,
        prediction=predictions.find(section.prediction, path, "model.prediction"),
        conditional=section.conditional,
        self_conditioning=section.net.self_conditioning,
        learns_variance=section.learned_variance,
        reads_text=reads_text,
    )


def _check_learned(section: config.Section) -> None:
    """Raises UserError where the loss is not the bound, on which alone a path's interior has no say on average: any
    other loss would lead the path to where it is small."""
    weighting, law = section.weighting.name, section.times.name
    if weighting != "elbo":
        raise UserError(f"model.weighting.name={weighting!r} trains no model.schedule.name='learned'. Allowed: elbo.")
    if law not in times.UNIFORM:
        allowed = ", ".join(times.UNIFORM)
        raise UserError(f"model.times.name={law!r} trains no model.schedule.name='learned'. Allowed: {allowed}.")


def _params(denoiser: Denoiser, space: spaces.Space, key: Key[Array, ""]) -> Params:
    """What is trained of a denoiser: the weights of its net, and its path's parameters where it has some."""
    params = {DENOISER: denoiser.net.init(key, jnp.zeros((1, *space.shape)), jnp.ones(1))["params"]}
    if denoiser.schedule.init is not None:
        params[PATH] = denoiser.schedule.init(jax.random.fold_in(key, 2))
    return params


def _other(section: config.Section, name: str, spec: DataSpec) -> Model:
    """The model of the run that `model.NAME` took over."""
    described = section[f"{name}_run"]
    first_stage.check_shape(name, described, spec.shape)
    make = config.select("latent.models", described.model.name, "build", f"model.{name}")
    return make(config.Section(described.model.plain()), spec)


def _weak(section: config.Section, space: spaces.Space, spec: DataSpec) -> Denoiser | None:
    """The weaker denoiser of autoguidance: of the same latents, on the same path."""
    if not section.weak:
        return None
    theirs = config.Section(section.weak_run.model.plain())
    if theirs.name != section.name:
        raise UserError(f"model.weak={section.weak}: a {theirs.name!r} cannot guide a {section.name!r}.")
    origins = [part.first_stage_run.sha256 if part.first_stage else "" for part in (section, theirs)]
    if origins[0] != origins[1]:
        raise UserError(f"model.weak={section.weak} denoises the latents of another first stage than this run.")
    if theirs.schedule.plain() != section.schedule.plain():
        raise UserError(f"model.weak={section.weak} has another model.schedule than this run.")
    return _denoiser(theirs, space, spec)


def _classifier(section: config.Section, space: spaces.Space, spec: DataSpec) -> Any:
    """log p(label | z) of the classifier in `model.classifier`, which sees what z decodes to."""
    if not section.classifier:
        return None
    model = _other(section, CLASSIFIER, spec)

    def logits(params: Params, extra: Extra, x: Array) -> Float[Array, "N classes"]:
        keys = jax.random.split(jax.random.key(0), len(x))  # a classifier draws nothing
        return model.encode(params, extra, x, keys).info["logits"]

    def outputs() -> Any:
        x = jnp.zeros((1, *spec.shape))
        return logits(*model.init(jax.random.key(0), {"x": x, "label": jnp.zeros(1, jnp.int32)}), x)

    try:
        jax.eval_shape(outputs)
    except (KeyError, TypeError) as error:
        name = section.classifier_run.model.name
        raise UserError(f"model.classifier={section.classifier}: a {name!r} gives no logits.") from error

    def log_prob(params: Params, extra: Extra, z: Array, label: Array) -> Float[Array, "N"]:
        found = jax.nn.log_softmax(logits(params[CLASSIFIER], extra[CLASSIFIER], space.decode(params, extra, z)))
        return jnp.where(label < 0, 0.0, jnp.take_along_axis(found, label[:, None], axis=1)[:, 0])  # no label: no pull

    return log_prob
