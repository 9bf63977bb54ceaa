"""Samples of a diffusion model by the options that a user gives: which sampler, how many steps, which guidance.

Owns the programs that are compiled for them, one set for each choice of options. Where the net has convolutions and
runs on CPU a step is a program of its own, everywhere else all steps are one (`sampling.runner`): same numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jaxtyping import Array, Float, Int, Key

from latent import config, rng
from latent.diffusion import grids, sampling
from latent.diffusion.denoiser import Denoiser, Guidance, Guides, check, guided
from latent.diffusion.schedules import prior_scale
from latent.diffusion.spaces import Space
from latent.errors import UserError
from latent.types import Extra, Params


def sampler(
    denoiser: Denoiser, guides: Guides, space: Space, classes: int, defaults: Mapping[str, Any]
) -> Callable[..., Float[Array, "N ..."]]:
    """The family's `Model.sample`, whose options default to the config section `model.sampling`."""

    @functools.cache
    def compiled(name: str, steps: int, grid: str, guidance: Guidance) -> Callable[..., Float[Array, "N ..."]]:
        """draw(params, extra, keys, label) for these options."""
        check(guidance, denoiser, guides)
        times = grids.find(grid, "--grid")(denoiser.path, steps)
        options = defaults["options"] if name == defaults["sampler"] else {}
        walk = config.select("latent.diffusion.samplers", name, "sampler", "--sampler")(denoiser.path, times, **options)
        walk = sampling.self_conditioned(walk) if denoiser.self_conditioning else walk
        scale = prior_scale(denoiser.path, times[0])

        @jax.jit
        def start(keys: Key[Array, "N"], label: Int[Array, "N"] | None) -> tuple[Array, Any]:
            label = rng.classes(keys, classes) if classes and label is None else label
            return sampling.start(keys, space.shape, scale), label

        run, decode = sampling.runner(walk, guided(denoiser, guides, guidance)), jax.jit(space.decode)

        def draw(params: Params, extra: Extra, keys: Key[Array, "N"], label: Any) -> Float[Array, "N ..."]:
            x, label = start(keys, label)
            return decode(params, extra, run((params, extra, label), x, keys))

        return draw

    def sample(
        params: Params,
        extra: Extra,
        keys: Key[Array, "N"],
        condition: Int[Array, "N"] | None = None,
        *,
        sampler: str = defaults["sampler"],
        steps: int = defaults["steps"],
        grid: str = defaults["grid"],
        guidance: float = defaults["guidance"],
        guidance_interval: tuple[float, ...] = defaults["guidance_interval"],
        guidance_rescale: float = defaults["guidance_rescale"],
        autoguidance: float = defaults["autoguidance"],
        classifier_scale: float = defaults["classifier_scale"],
    ) -> Float[Array, "N ..."]:
        if condition is not None and not classes:
            raise UserError("model.conditional=False: samples of one class need a model trained with True.")
        asked = Guidance(guidance, autoguidance, classifier_scale, tuple(guidance_interval), guidance_rescale)
        return compiled(sampler, steps, grid, asked)(params, extra, keys, condition)

    return sample
