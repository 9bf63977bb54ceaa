"""UniPC: a multistep predictor and a corrector that reuses the next call, one call a step.

Zhao et al. 2023 (arXiv 2302.04867), algorithms 5 and 6 (data prediction), with B(h) = e^h - 1 ("bh2"). Both are an
exponential integrator in half the log-SNR plus weighted differences of x0 to those of other steps; the weights solve a
small Vandermonde system each and depend on the grid alone, so they are computed once.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent.diffusion import sampling
from latent.diffusion.schedules import Path
from latent.errors import UserError


def _phi(order: int, z: Float[Array, "S"]) -> Float[Array, "S"]:
    """sum over n of z^n / (n + order)!, for z < 0: the series where it is short, since the closed form,
    phi_(k+1) = (phi_k - 1 / k!) / z from phi_0 = e^z, is a difference of nearly equal numbers there."""
    short = sum((1.0 / math.factorial(n + order)) * jnp.maximum(z, -1.0) ** n for n in range(12))
    closed = jnp.expm1(z) / z
    for k in range(1, order):
        closed = (closed - 1.0 / math.factorial(k)) / z
    return jnp.where(z > -1.0, short, closed)


def _weights(h: Float[Array, "S"], nodes: Float[Array, "S n"]) -> Float[Array, "S n"]:
    """What multiplies (x0 at a node - x0 here) of n nodes: in units of h from here, so the coming step's end is 1.

    Solves sum_k a_k r_k^(j-1) = j! phi_(j+1)(-h) (-h) / (e^-h - 1), j = 1 .. n (eq. 11), and returns a_k / r_k.
    """
    size = nodes.shape[1]
    if size == 1:  # the paper's a = 1/2, which is as accurate
        return 0.5 / nodes
    right = [math.factorial(j) * _phi(j + 1, -h) * -h / jnp.expm1(-h) for j in range(1, size + 1)]
    powers = jnp.stack([nodes**j for j in range(size)], axis=1)
    return jnp.linalg.solve(powers, jnp.stack(right, axis=1)[..., None])[..., 0] / nodes


@partial(jax.jit, static_argnums=(1, 2))
def tables(
    grid: sampling.Levels, order: int, lower_order_final: bool
) -> tuple[Float[Array, "S order"], Float[Array, "S order"]]:
    """Weights of predictor and corrector for the step i -> i + 1. Column 0 belongs to the step's end (corrector only),
    column k to the x0 of k steps ago."""
    steps = grid.num_steps
    half = 0.5 * grid.log_snr
    h = jnp.diff(half)
    # How many earlier points may be used: those there are, none at infinite log-SNR, fewer towards the end if asked.
    finite = jnp.isfinite(h)
    index = jnp.arange(steps)
    usable = jnp.minimum(index - jnp.where(finite[0], 0, 1), order - 1)
    if lower_order_final:
        usable = jnp.minimum(usable, steps - 1 - index)
    usable = jnp.where(finite, jnp.maximum(usable, 0), 0)
    predictor, corrector = jnp.zeros((steps, order), h.dtype), jnp.zeros((steps, order), h.dtype)
    for past in range(order):
        rows = finite & (usable == past)
        back = [half[jnp.maximum(index - k, 0)] - half[:-1] for k in range(1, past + 1)]
        safe = jnp.where(rows, h, 1.0)
        nodes = [jnp.where(rows, distance / safe, -float(k)) for k, distance in enumerate(back, 1)]
        if past:
            found = _weights(safe, jnp.stack(nodes, axis=1))
            predictor = predictor.at[:, 1 : past + 1].add(jnp.where(rows[:, None], found, 0.0))
        found = _weights(safe, jnp.stack([*nodes, jnp.ones_like(h)], axis=1))
        found = jnp.concatenate([found[:, -1:], found[:, :-1]], axis=1)
        corrector = corrector.at[:, : past + 1].add(jnp.where(rows[:, None], found, 0.0))
    return predictor, corrector


def sampler(path: Path, times: Float[Array, "T"], order: int = 2, lower_order_final: bool = True) -> sampling.Sampler:
    """`order` 1 to 3 of the predictor; the corrector makes the method one order better. Raises UserError otherwise."""
    if not 1 <= order <= 3:
        raise UserError(f"order={order} must be 1, 2 or 3.")
    grid = sampling.levels(path, times)
    h = 0.5 * jnp.diff(grid.log_snr)
    kept = grid.sigma[1:] / grid.sigma[:-1]
    to_x0 = -grid.alpha[1:] * jnp.expm1(-h)  # also -alpha B(h), which multiplies the differences
    predictor, corrector = tables(grid, order, lower_order_final)

    def advance(i: sampling.Index, weights: Array, x: Array, here: Array, others: Array) -> Array:
        differences = jnp.tensordot(weights[i], others - here, axes=1)
        return kept[i] * x + to_x0[i] * (here + differences)

    def step(denoise: sampling.DenoiseFn, carry: tuple, i: sampling.Index, noise: Array) -> tuple:
        guess, x, history = carry  # history[k]: x0 of k + 1 steps ago
        x0 = denoise(guess, grid.time[i]).x0
        # The step that led here, once more, now that x0 at its end is known; "here" was then the previous x0.
        seen = jnp.concatenate([x0[None], history[1:]])
        corrected = advance(jnp.maximum(i - 1, 0), corrector, x, history[0], seen)
        x = jnp.where(i > 0, corrected, guess)
        history = jnp.concatenate([x0[None], history[:-1]])
        return advance(i, predictor, x, x0, history), x, history

    return sampling.Sampler(
        init=lambda x: (x, x, jnp.zeros((order, *x.shape), x.dtype)),
        step=step,
        finish=lambda carry: carry[0],
        num_steps=grid.num_steps,
    )
