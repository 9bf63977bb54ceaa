"""From the options that a user gives to what a diffusion model runs: which sampler, how many steps, which guidance.

Shared by samples and edits. Owns the programs compiled for samples, one set for each choice of options. Where the net
has convolutions and runs on CPU a step is a program of its own, everywhere else all steps are one (`sampling.runner`):
same numbers.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from latent import config, rng
from latent.diffusion import grids, sampling
from latent.diffusion.denoiser import Denoiser, Guidance, Guides, check, guided
from latent.diffusion.guidance import NULL
from latent.diffusion.schedules import Path, prior_scale
from latent.diffusion.spaces import Space
from latent.errors import UserError
from latent.types import Condition, Extra, Params


class Choice(NamedTuple):
    """What a user chose."""

    sampler: str
    steps: int
    grid: str
    guidance: Guidance


class Generator(NamedTuple):
    """A diffusion model as its samplers see it; `defaults` is the config section `model.sampling`."""

    denoiser: Denoiser
    guides: Guides
    space: Space
    classes: int
    defaults: Mapping[str, Any]

    def choose(self, **options: Any) -> Choice:
        """The defaults with `options` in their place. Raises UserError for what this model cannot do."""
        unknown = options.keys() - self.defaults.keys() | options.keys() & {"options"}
        if unknown:
            allowed = ", ".join(sorted(self.defaults.keys() - {"options"}))
            raise UserError(f"--{min(unknown)}: there is no such option here. Allowed: {allowed}.")
        chosen = {**self.defaults, **options}
        guidance = Guidance(
            classifier_free=chosen["guidance"],
            autoguidance=chosen["autoguidance"],
            classifier=chosen["classifier_scale"],
            interval=tuple(chosen["guidance_interval"]),
            rescale=chosen["guidance_rescale"],
        )
        check(guidance, self.denoiser, self.guides)
        return Choice(chosen["sampler"], chosen["steps"], chosen["grid"], guidance)

    def told(self, condition: Condition | Int[Array, "N"] | None) -> Condition:
        """What samples are asked to be. Raises UserError for what this model does not know."""
        asked = Condition.of(condition)
        if asked.label is not None and not self.classes:
            raise UserError("model.conditional=False: samples of one class need a model trained with True.")
        if asked.text is not None and not self.denoiser.reads_text:
            raise UserError("model.text=False: samples of a text need a model trained with True.")
        return asked

    def times(self, choice: Choice, path: Path) -> Float[Array, "T"]:
        """The times of the path that the choice visits."""
        return grids.find(choice.grid, "--grid")(path, choice.steps)

    def along(self, choice: Choice, make: Callable[[Path, Float[Array, "T"]], Any]) -> Callable[[Params], Any]:
        """params -> make(path, times): made once for all parameters where the path has none, else anew in whatever is
        compiled, as a function of them."""
        schedule, made = self.denoiser.schedule, lambda path: make(path, self.times(choice, path))
        if schedule.init is not None:
            return lambda params: made(schedule.of(params))
        once = made(schedule.at(None))
        return lambda params: once

    def make(self, choice: Choice) -> Callable[..., sampling.Sampler]:
        """(path, times) -> the sampler of the choice; the config's options go with the config's own sampler."""
        make = config.select("latent.diffusion.samplers", choice.sampler, "sampler", "--sampler")
        options = self.defaults["options"] if choice.sampler == self.defaults["sampler"] else {}
        try:
            inspect.signature(make).bind(None, None, **options)
        except TypeError as error:
            raise UserError(f"--options={options} do not fit --sampler={choice.sampler!r}: {error}.") from error
        return functools.partial(make, **options)

    def check(self) -> None:
        """Raises UserError where the model cannot sample by its own config, naming the config's keys."""
        try:
            choice = self.choose()
            make = self.make(choice)
            if make.keywords.get("variance") == "learned" and not self.denoiser.learns_variance:
                raise UserError("--options.variance='learned' needs model.learned_variance=True.")
            if self.denoiser.schedule.init is None:  # a learned path has no levels before its parameters
                jax.eval_shape(lambda: (self.along(choice, make)({}), None)[1])
        except UserError as error:
            text = str(error).replace("--", "model.sampling.")
            raise UserError(text if "model.sampling." in text else f"model.sampling: {text}") from error

    def run(self, walk: Callable[[Params], sampling.Sampler], choice: Choice) -> Callable[..., Any]:
        """Compiles ((params, extra, condition), start, keys) -> what the sampler at these parameters gives."""
        conditioned = sampling.self_conditioned if self.denoiser.self_conditioning else lambda sampler: sampler
        estimate = guided(self.denoiser, self.guides, choice.guidance)
        return sampling.runner(lambda inputs: conditioned(walk(inputs[0])), estimate)


def sampler(generator: Generator) -> Callable[..., Float[Array, "N ..."]]:
    """The family's `Model.sample`. With `trajectory` it gives [2, S, N, ...]: decoded at every step, what was denoised
    and the data that it was taken for."""
    space, classes, defaults = generator.space, generator.classes, generator.defaults

    @functools.cache
    def compiled(choice: Choice, trajectory: bool) -> Callable[..., Array]:
        make = generator.make(choice)
        recorded = lambda path, times: sampling.recording(make(path, times))  # noqa: E731
        run = generator.run(generator.along(choice, recorded if trajectory else make), choice)
        scale = generator.along(choice, lambda path, times: prior_scale(path, times[0]))
        decode = jax.jit(space.decode)

        @jax.jit
        def start(params: Params, keys: Key[Array, "N"], told: Condition) -> tuple[Array, Condition]:
            if classes and told.label is None:
                # A text speaks for itself: a class drawn at random beside it would contradict it.
                label = rng.classes(keys, classes) if told.text is None else jnp.full(len(keys), NULL)
                told = told._replace(label=label)
            return sampling.start(keys, space.shape, scale(params)), told

        def draw(params: Params, extra: Extra, keys: Key[Array, "N"], told: Condition) -> Array:
            x, told = start(params, keys, told)
            z = run((params, extra, told), x, keys)
            if not trajectory:
                return decode(params, extra, z)
            way = jnp.stack([z.seen, z.x0])
            x = decode(params, extra, way.reshape(-1, *space.shape))
            return x.reshape(*way.shape[:3], *x.shape[1:])

        return draw

    def sample(
        params: Params,
        extra: Extra,
        keys: Key[Array, "N"],
        condition: Condition | Int[Array, "N"] | None = None,
        *,
        sampler: str = defaults["sampler"],
        steps: int = defaults["steps"],
        grid: str = defaults["grid"],
        guidance: float = defaults["guidance"],
        guidance_interval: tuple[float, ...] = defaults["guidance_interval"],
        guidance_rescale: float = defaults["guidance_rescale"],
        autoguidance: float = defaults["autoguidance"],
        classifier_scale: float = defaults["classifier_scale"],
        trajectory: bool = False,
    ) -> Array:
        told = generator.told(condition)
        choice = generator.choose(
            sampler=sampler,
            steps=steps,
            grid=grid,
            guidance=guidance,
            guidance_interval=guidance_interval,
            guidance_rescale=guidance_rescale,
            autoguidance=autoguidance,
            classifier_scale=classifier_scale,
        )
        if choice.guidance.classifier and told.text is not None and told.label is None:
            scale = choice.guidance.classifier
            raise UserError(f"--classifier_scale={scale} pulls towards a class: beside a text, name it (--label).")
        return compiled(choice, trajectory)(params, extra, keys, told)

    return sample
