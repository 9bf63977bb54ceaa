"""What a diffusion model can make of given examples: the family's `Model.edits`, compiled once for each choice.

An edit is (params, extra, keys [N], x [N, ...], condition [N] or None, **options) -> {"x": [M, ...], ...}. All take
the options of `sample` beside their own; without a condition the denoiser is told nothing.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from latent import rng
from latent.analysis import interpolation
from latent.diffusion import editing, sampling, schedules
from latent.diffusion.generation import Choice, Generator
from latent.diffusion.guidance import NULL
from latent.errors import UserError, unknown_name
from latent.types import Condition, EditFn, Extra, Params


def edits(generator: Generator) -> dict[str, EditFn]:
    """Edits by name."""
    both_ways = functools.cache(functools.partial(_both_ways, generator))
    found = {
        "invert": _invert(generator, both_ways),
        "img2img": _img2img(generator),
        "inpaint": _inpaint(generator),
        "interpolate": _interpolate(generator, both_ways),
    }
    return {name: _with_something_to_guide(edit) for name, edit in found.items()}


def _with_something_to_guide(edit: EditFn) -> EditFn:
    """The edit, which refuses to be guided towards a condition that it is not given."""

    @functools.wraps(edit)
    def checked(
        params: Params, extra: Extra, keys: Key[Array, "N"], x: Float[Array, "N ..."], condition: Any, **options: Any
    ) -> dict[str, Array]:
        told = Condition.of(condition)
        if told.label is None and told.text is None:
            for name, without_effect in (("guidance", (0.0, 1.0)), ("classifier_scale", (0.0,))):
                if name in options and options[name] not in without_effect:
                    raise UserError(
                        f"--{name}={options[name]} has nothing to guide to: give --label or --prompt, or "
                        "--input=SPLIT:INDEX."
                    )
        return edit(params, extra, keys, x, condition, **options)

    return checked


def _begin(generator: Generator) -> Callable[..., tuple[Array, Condition]]:
    """(params, extra, keys, x, condition) -> z and what the denoiser is told."""

    @jax.jit
    def encode(params: Params, extra: Extra, keys: Key[Array, "N"], x: Float[Array, "N ..."]) -> Array:
        return generator.space.encode(params, extra, x, jax.vmap(lambda key: rng.fold_name(key, "posterior"))(keys))

    def begin(params: Params, extra: Extra, keys: Key[Array, "N"], x: Float[Array, "N ..."], condition: Any) -> Any:
        told = generator.told(condition)
        label = jnp.full(len(x), NULL) if told.label is None else told.label
        return encode(params, extra, keys, x), told._replace(label=label)

    return begin


def _choose(generator: Generator, mode: str, serving: tuple[str, ...], options: dict[str, Any]) -> Choice:
    """The choice, with a sampler that serves this edit: the config's own where it does, else the first that does."""
    if "sampler" not in options and generator.defaults["sampler"] not in serving:
        options = options | {"sampler": serving[0]}
    choice = generator.choose(**options)
    if choice.sampler not in serving:
        raise unknown_name(f"--mode={mode} --sampler", choice.sampler, serving)
    if choice.steps < 2:
        raise UserError(f"--steps={choice.steps} must be at least 2 for --mode={mode}.")
    return choice


def _both_ways(generator: Generator, choice: Choice) -> tuple[Callable[..., Array], Callable[..., Array]]:
    """((params, extra, condition), x, keys) -> noise, and the way back."""
    # Without the config's options for its own sampler: noise that these add could not be walked back.
    make = generator._replace(defaults={**generator.defaults, "options": {}}).make(choice)
    ways = (functools.partial(way, make) for way in (editing.upward, editing.downward))
    return tuple(generator.run(generator.along(choice, way), choice) for way in ways)


def _invert(generator: Generator, both_ways: Callable[[Choice], Any]) -> EditFn:
    begin, decode = _begin(generator), jax.jit(generator.space.decode)

    def invert(
        params: Params, extra: Extra, keys: Key[Array, "N"], x: Float[Array, "N ..."], condition: Any, **options: Any
    ) -> dict[str, Array]:
        """The noise that leads to each x, and x made from it again."""
        up, down = both_ways(_choose(generator, "invert", editing.DETERMINISTIC, options))
        z, told = begin(params, extra, keys, x, condition)
        noise = up((params, extra, told), z, keys)
        return {"x": decode(params, extra, down((params, extra, told), noise, keys)), "noise": noise}

    return invert


def _interpolate(generator: Generator, both_ways: Callable[[Choice], Any]) -> EditFn:
    begin, decode = _begin(generator), jax.jit(generator.space.decode)

    def interpolate(
        params: Params,
        extra: Extra,
        keys: Key[Array, "N"],
        x: Float[Array, "N ..."],
        condition: Any,
        *,
        frames: int = 8,
        **options: Any,
    ) -> dict[str, Array]:
        """`frames` pictures from each x to the next, both included, over the great circle between their noises; the
        first half of them is told what the one is, the second half what the other is."""
        if len(x) < 2 or frames < 2:
            raise UserError(f"--mode=interpolate needs two inputs and two frames; here are {len(x)} and {frames}.")
        up, down = both_ways(_choose(generator, "interpolate", editing.DETERMINISTIC, options))
        z, told = begin(params, extra, keys, x, condition)
        noise = up((params, extra, told), z, keys)
        ends, shares = np.asarray(noise).reshape(len(x), -1), np.linspace(0.0, 1.0, frames)
        path = np.concatenate([interpolation.slerp(one, other, shares) for one, other in itertools.pairwise(ends)])
        flat = jnp.asarray(path, noise.dtype).reshape(-1, *noise.shape[1:])
        half = np.arange(frames) >= (frames + 1) // 2
        nearer = (np.arange(len(x) - 1)[:, None] + half).reshape(-1)  # the input that each picture is told of
        beside = jax.tree.map(lambda part: part[nearer], told)
        found = down((params, extra, beside), flat, jnp.repeat(keys[:-1], frames))
        return {"x": decode(params, extra, found), "noise": flat}

    return interpolate


def _img2img(generator: Generator) -> EditFn:
    begin, decode = _begin(generator), jax.jit(generator.space.decode)

    @functools.cache
    def compiled(choice: Choice, strength: float) -> tuple[Callable[..., Array], Callable[..., Array]]:
        left = functools.partial(editing.remaining, strength=strength)
        if len(left(jnp.zeros(choice.steps + 1))) == 1:
            return lambda params, z, keys: z, lambda inputs, z, keys: z
        make = generator.make(choice)
        run = generator.run(generator.along(choice, lambda path, times: make(path, left(times))), choice)
        noising = generator.along(
            choice, lambda path, times: functools.partial(schedules.perturb, path, t=left(times)[0])
        )
        noised = lambda params, z, keys: noising(params)(z, sampling.start(keys, z.shape[1:]))  # noqa: E731
        return jax.jit(noised), run

    def img2img(
        params: Params,
        extra: Extra,
        keys: Key[Array, "N"],
        x: Float[Array, "N ..."],
        condition: Any,
        *,
        strength: float = 0.5,
        **options: Any,
    ) -> dict[str, Array]:
        """x noised by the share `strength` of the steps and denoised again (SDEdit): 0 gives what the space makes of x
        (with a first stage its reconstruction), 1 forgets x."""
        noised, run = compiled(generator.choose(**options), strength)
        z, told = begin(params, extra, keys, x, condition)
        return {"x": decode(params, extra, run((params, extra, told), noised(params, z, keys), keys))}

    return img2img


def _inpaint(generator: Generator) -> EditFn:
    begin, decode = _begin(generator), jax.jit(generator.space.decode)

    @functools.cache
    def compiled(choice: Choice, resamplings: int) -> Callable[..., Array]:
        make = generator.make(choice)
        filled = lambda path, times: editing.inpainted(make(path, times), path, times, resamplings)  # noqa: E731
        return generator.run(generator.along(choice, filled), choice)

    def inpaint(
        params: Params,
        extra: Extra,
        keys: Key[Array, "N"],
        x: Float[Array, "N ..."],
        condition: Any,
        *,
        mask: Float[Array, "N H W 1"] | None = None,
        resamplings: int = 5,
        **options: Any,
    ) -> dict[str, Array]:
        """What `mask` leaves open (0) drawn anew and the rest (1) as it is, pixel for pixel. In spatial latents a
        square of pixels stays only where all of it does."""
        if mask is None or x.ndim != 4 or mask.shape[1:3] != x.shape[1:3]:
            seen = None if mask is None else mask.shape[1:3]
            raise UserError(f"--mask: pictures of {x.shape[1:]} need a mask of the same sides; it has {seen}.")
        shape = generator.space.shape
        kept = mask if shape == x.shape[1:] else editing.mask_of_latents(mask, shape)
        run = compiled(_choose(generator, "inpaint", editing.MEMORYLESS[::-1], options), resamplings)
        z, told = begin(params, extra, keys, x, condition)
        start = sampling.start(keys, (3, *shape))
        found = decode(params, extra, run((params, extra, told), (start, z, kept), keys))
        return {"x": mask * x + (1.0 - mask) * found}

    return inpaint
