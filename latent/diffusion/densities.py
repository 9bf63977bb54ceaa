"""Likelihoods of a diffusion model: the family's `Model.likelihoods`, compiled once for each choice.

Those of a latent model are densities of its latents, not of what they decode to; their names say so.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float, Key

from latent import rng
from latent.diffusion import likelihood, sampling
from latent.diffusion.denoiser import Guidance, guided
from latent.diffusion.generation import Choice, Generator
from latent.diffusion.schedules import Path
from latent.errors import UserError
from latent.types import Batch, Extra, LikelihoodFn, Params

LEVELS = 256
"""Of a pixel."""


def likelihoods(generator: Generator, support: str, latent: bool) -> dict[str, LikelihoodFn]:
    """ "vlb" and "ode", of a latent model "latent_vlb" and "latent_ode"; none of binary data, which have no density."""
    if latent:
        found = {"latent_vlb": _vlb(generator, False), "latent_ode": _ode(generator, False)}
    else:
        found = {"vlb": _vlb(generator, support == "unit"), "ode": _ode(generator, support == "unit")}
    return {} if support == "binary" and not latent else found


def _begin(generator: Generator, dequantise: bool) -> Callable[..., tuple[Array, Any]]:
    """(params, extra, batch, keys) -> z, with pixels dequantised if asked, and the condition the denoiser is told."""

    @jax.jit
    def begin(params: Params, extra: Extra, batch: Batch, keys: Key[Array, "B"]) -> tuple[Array, Any]:
        x, stream = batch["x"], lambda name: jax.vmap(lambda key: rng.fold_name(key, name))(keys)
        if dequantise:
            noise = jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:]))(stream("dequantise"))
            x = ((LEVELS - 1) * x + noise) / LEVELS
        z = generator.space.encode(params, extra, x, stream("posterior"))
        return z, generator.denoiser.told_of(batch)

    return begin


def _choose(generator: Generator, steps: int, grid: str) -> Choice:
    if steps < 2:
        raise UserError(f"steps={steps} of a likelihood must be at least 2.")
    return generator.choose(steps=steps, grid=grid)


def _run(generator: Generator, choice: Choice, make: Callable[[Path, Array], sampling.Sampler]) -> Callable[..., Any]:
    """Compiles make(path, times), over the times of a likelihood: a grid without its 0. It asks the denoiser alone.

    Guided it is the model of no density; told an estimate from another noisy copy of x, it would know more of x than
    the bound allows."""
    walk = generator.along(choice, lambda path, times: make(path, times[:-1]))
    return sampling.runner(lambda inputs: walk(inputs[0]), guided(generator.denoiser, generator.guides, Guidance()))


def _bits(log_prob: Float[Array, "B"], z: Float[Array, "B ..."], bin_width: float) -> Float[Array, "B"]:
    return likelihood.bits_per_dim(log_prob, z.shape[1:], bin_width)


def _width(pixels: bool) -> float:
    """Of a level, where 0 .. 256 became -1 .. 1."""
    return 2.0 / LEVELS if pixels else 1.0


def _vlb(generator: Generator, pixels: bool) -> LikelihoodFn:
    begin = _begin(generator, False)

    @functools.cache
    def compiled(steps: int, grid: str, quantised: bool) -> Callable[..., likelihood.Bound]:
        decoder = likelihood.discretised_gaussian(LEVELS) if quantised else likelihood.gaussian_decoder
        return _run(generator, _choose(generator, steps, grid), functools.partial(likelihood.vlb, decoder=decoder))

    def vlb(
        params: Params,
        extra: Extra,
        batch: Batch,
        keys: Key[Array, "B"],
        *,
        steps: int,
        grid: str = "trailing",
        quantised: bool = True,
    ) -> Float[Array, "B"]:
        """The bound of the DDPM of `steps` steps with its smaller variance (Ho et al. 2020, eq. 5): of pixels, bits of
        the 256 levels, exactly where x is `quantised`, else an upper bound by the density of dequantised ones."""
        z, condition = begin(params, extra, batch, keys)
        bound = compiled(steps, grid, quantised and pixels)((params, extra, condition), z, keys)
        return _bits(bound.log_prob, z, 1.0 if quantised else _width(pixels))

    return vlb


def _ode(generator: Generator, pixels: bool) -> LikelihoodFn:
    dequantising, plain = _begin(generator, True), _begin(generator, False)

    @functools.cache
    def compiled(steps: int, grid: str, divergence: str) -> Callable[..., Float[Array, "B"]]:
        make = functools.partial(likelihood.ode, divergence=divergence, method="heun")
        return _run(generator, _choose(generator, steps, grid), make)

    def ode(
        params: Params,
        extra: Extra,
        batch: Batch,
        keys: Key[Array, "B"],
        *,
        steps: int,
        grid: str = "log_snr",
        divergence: str = "hutchinson",
        quantised: bool = True,
    ) -> Float[Array, "B"]:
        """The density of the probability-flow ODE (Song et al. 2021, section 4.3), Heun's method; pixels that are still
        `quantised` are dequantised uniformly, so that it bounds the bits of their levels."""
        z, condition = (dequantising if quantised and pixels else plain)(params, extra, batch, keys)
        log_prob = compiled(steps, grid, divergence)((params, extra, condition), z, keys)
        return _bits(log_prob, z, _width(pixels))

    return ode
