"""The loop that samplers, and everything else that asks a denoiser step after step, run in.

A `Sampler` is data: pure functions and two numbers, no keys. `runner` draws each step's noise from (sample key, step
number) alone, so sample n never depends on the batch it was made in, and runs the steps as one compiled loop or as
steps compiled by themselves, with the same numbers. Knows no sampler by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from latent import loops, rng
from latent.diffusion.predictions import Denoised
from latent.diffusion.schedules import Path

Carry = Any
"""A pytree of arrays whose shapes and dtypes no step changes."""

Index = Int[Array, ""] | int
"""The number of a step, traced or not."""

DenoiseFn = Callable[[Float[Array, "N ..."], Float[Array, ""]], Denoised]
"""(x [N, ...], one time t for all) -> Denoised."""


class Sampler(NamedTuple):
    """Steps from a start to a sample.

    init    (x [N, ...] at the first time) -> carry, whose first leaf is x
    step    (denoise, carry, i, noise [N, ...]) -> carry; i is 0 .. num_steps - 1, possibly traced; noise is standard
            normal, shaped like the first leaf of the start, fresh at every step, and ignored by samplers that are
            deterministic (the compiler then drops it)
    finish  carry -> the sample
    """

    init: Callable[[Any], Carry]
    step: Callable[[DenoiseFn, Carry, Index, Array], Carry]
    finish: Callable[[Carry], Any]
    num_steps: int
    calls_per_step: int = 1


class Levels(NamedTuple):
    """What samplers read off a path at their grid, each [S + 1]."""

    time: Float[Array, "T"]
    alpha: Float[Array, "T"]
    sigma: Float[Array, "T"]
    log_snr: Float[Array, "T"]

    @property
    def num_steps(self) -> int:
        return self.time.shape[0] - 1


def levels(path: Path, times: Float[Array, "T"]) -> Levels:
    """The path at the times of a grid; one program, where op by op would compile dozens."""
    return jax.jit(lambda t: Levels(t, path.alpha(t), path.sigma(t), path.log_snr(t)))(jnp.asarray(times))


def snr_ratio(grid: Levels) -> Float[Array, "S"]:
    """SNR(here) / SNR(next) of every step: 0 where it starts in pure noise or ends in the data."""
    return jnp.exp(grid.log_snr[:-1] - grid.log_snr[1:])


def runner(
    sampler: Sampler | Callable[[Any], Sampler],
    denoise: Callable[[Any, Array, Array], Denoised],
    scan: bool | None = None,
) -> Callable[[Any, Array, Key[Array, "N"]], Any]:
    """Compiles (inputs, x [N, ...], keys [N]) -> sample; keep it, a second call with equal shapes compiles nothing.

    `denoise(inputs, x, t)` gets whatever arrays it needs (parameters, labels) through the pytree `inputs`; a sampler
    whose path depends on them is given as a function of them. With `scan` the steps are one compiled loop; without,
    every step is dispatched by itself, which nets with convolutions need on CPU: XLA runs convolutions inside loops an
    order of magnitude slower there, and written out they take minutes to compile. None: whichever suits the backend and
    the net (`loops.rollable`). Where it does not scan it is not to be called under `jit`, which would write all steps
    out. x is drawn by the caller: `start` for samples, a noised input for editing.
    """
    of = (lambda inputs: sampler) if isinstance(sampler, Sampler) else sampler

    def step(walk: Sampler, inputs: Any, carry: Carry, i: Array, keys: Key[Array, "N"], like: Array) -> Carry:
        noise = _noise(keys, i, like)
        return walk.step(lambda *where: denoise(inputs, *where), carry, i, noise)

    @jax.jit
    def scanned(inputs: Any, x: Any, keys: Key[Array, "N"]) -> Any:
        walk, like = of(inputs), jax.tree.leaves(x)[0]
        body = lambda carry, i: (step(walk, inputs, carry, i, keys, like), None)  # noqa: E731
        return walk.finish(lax.scan(body, walk.init(x), jnp.arange(walk.num_steps))[0])

    @jax.jit
    def begin(inputs: Any, x: Any) -> tuple[Carry, Array]:
        walk = of(inputs)
        return walk.init(x), jnp.arange(walk.num_steps)

    single = jax.jit(lambda inputs, *where: step(of(inputs), inputs, *where))
    finish = jax.jit(lambda inputs, carry: of(inputs).finish(carry))

    def stepped(inputs: Any, x: Any, keys: Key[Array, "N"]) -> Any:
        (carry, steps), like = begin(inputs, x), jax.tree.leaves(x)[0]
        for i in range(len(steps)):
            carry = single(inputs, carry, jnp.asarray(i), keys, like)
        return finish(inputs, carry)

    if scan is not None:
        return scanned if scan else stepped
    chosen: list[Callable[..., Any]] = []

    def run(inputs: Any, x: Any, keys: Key[Array, "N"]) -> Any:
        if not chosen:
            chosen.append(scanned if loops.rollable(scanned, inputs, x, keys) else stepped)
        return chosen[0](inputs, x, keys)

    return run


def _noise(keys: Key[Array, "N"], i: Int[Array, ""], like: Float[Array, "N ..."]) -> Float[Array, "N ..."]:
    return rng.normal(jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, i + 1), *like.shape[1:])


def start(keys: Key[Array, "N"], shape: tuple[int, ...], scale: Float[Array, ""] | float = 1.0) -> Array:
    """x [N, *shape] at the first time: `scale` (`schedules.prior_scale` at that time) times noise no step draws."""
    return scale * rng.normal(jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, 0), *shape)


def self_conditioned(sampler: Sampler) -> Sampler:
    """The same sampler for a denoiser (x, t, previous x0) -> Denoised that is told its last estimate, zeros at first
    (Chen et al. 2022, arXiv 2208.04202, section 3.2)."""

    def step(denoise: Any, carry: Carry, i: Index, noise: Array) -> Carry:
        inner, previous = carry
        seen = [previous]

        def telling(x: Array, t: Array) -> Denoised:
            estimate = denoise(x, t, seen[-1])
            seen.append(estimate.x0)
            return estimate

        return sampler.step(telling, inner, i, noise), seen[-1]

    def init(x: Any) -> Carry:
        inner = sampler.init(x)
        return inner, jnp.zeros_like(jax.tree.leaves(inner)[0])  # a carry leads with its x

    return sampler._replace(
        init=init,
        step=step,
        finish=lambda carry: sampler.finish(carry[0]),
    )


class Walked(NamedTuple):
    """A sample and how it came about: at every step what the denoiser saw first, and the data it took that for."""

    sample: Float[Array, "N ..."]
    seen: Float[Array, "S N ..."]
    x0: Float[Array, "S N ..."]


def recording(sampler: Sampler) -> Sampler:
    """The same sampler, whose result is a `Walked`. Goes inside `self_conditioned`."""

    def init(x: Any) -> Carry:
        empty = jnp.zeros((sampler.num_steps, *x.shape), x.dtype)
        return sampler.init(x), empty, empty

    def step(denoise: DenoiseFn, carry: Carry, i: Index, noise: Array) -> Carry:
        inner, seen, x0 = carry
        calls = []

        def watched(x: Array, t: Array) -> Denoised:
            estimate = denoise(x, t)
            calls.append((x, estimate.x0))
            return estimate

        inner = sampler.step(watched, inner, i, noise)
        return inner, seen.at[i].set(calls[0][0]), x0.at[i].set(calls[0][1])

    finish = lambda carry: Walked(sampler.finish(carry[0]), carry[1], carry[2])  # noqa: E731
    return sampler._replace(init=init, step=step, finish=finish)
