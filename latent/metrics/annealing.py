"""Annealed importance sampling of a normalising constant, with Hamiltonian moves. No metric itself.

Neal 2001 (arXiv physics/9803008); for decoders Wu et al. 2017 (arXiv 1611.04273). Works on `u`, in which the start of
the path is standard normal, for B targets with C independent chains each. Knows densities, and no model.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from latent import loops

Target = Callable[[PyTree, Float[Array, "B C ..."]], Float[Array, "B C"]]
"""(arguments, u) -> the log of the unnormalised density that the path ends at; chains must not mix."""

ACCEPTANCE = 0.65
"""Acceptance rate that step sizes are tuned to (Neal 2011, section 5.4.4)."""
TUNING_RATE, FIRST_SIZE = 0.1, 0.5


class Annealed(NamedTuple):
    """What a pass along the path gives.

    log_weights  of every chain: their exponentials average to Z_end / Z_start, whatever the number of temperatures
    u            where the chains ended
    sizes        the step sizes used, per transition and target
    acceptance   of every target, averaged over chains and transitions
    """

    log_weights: Float[Array, "B C"]
    u: Float[Array, "B C ..."]
    sizes: Float[Array, "steps B"]
    acceptance: Float[Array, "B"]


class _Settings(NamedTuple):
    target: Target
    leapfrog_steps: int
    unroll: int  # all steps, where the target must not stand inside a loop


class _Chains(NamedTuple):
    u: Array
    value: Array  # of the target, and its gradient: the same at every temperature
    gradient: Array
    log_weights: Array
    log_size: Array


def temperatures(count: int, steepness: float = 4.0) -> Float[np.ndarray, "T"]:
    """From 0 to 1 in `count` distributions, closer together at both ends (Wu et al. 2017, section 4: a sigmoid)."""
    ends = 1 / (1 + np.exp(-steepness * np.linspace(-1, 1, count)))
    return (ends - ends[0]) / (ends[-1] - ends[0])


def anneal(
    target: Target,
    arguments: PyTree,
    u: Float[Array, "B C ..."],
    keys: Key[Array, "B C"],
    betas: Float[np.ndarray, "T"],
    leapfrog_steps: int = 10,
    sizes: Float[Array, "T-1 B"] | None = None,
) -> Annealed:
    """Moves chains along start^(1 - beta) target^beta, from draws `u` of the distribution at betas[0].

    `sizes` are the step sizes of every transition; None tunes them on the way, by target and from all its chains: such
    a pass is to learn sizes from, and its weights are biased a little. Falling betas, from exact draws of the target,
    give weights that average to Z_start / Z_end: the other side of the sandwich (Grosse et al. 2015, 1511.02543).
    """
    tuned = jnp.full((len(betas) - 1, u.shape[0]), math.log(FIRST_SIZE)) if sizes is None else jnp.log(sizes)
    chains = _Chains(u, *_value(target, arguments, u), jnp.zeros(u.shape[:2]), tuned[0])
    times = np.arange(len(betas) - 1, dtype=np.uint32)
    inputs = (np.float32(betas[:-1]), np.float32(betas[1:]), times, tuned, np.full(len(times), sizes is None))
    if loops.rollable(functools.partial(target, arguments), u):
        settings = _Settings(target, leapfrog_steps, 1)
        chains, (used, accepted) = _all(settings, arguments, keys, chains, inputs)
    else:
        settings, told = _Settings(target, leapfrog_steps, leapfrog_steps), []
        for time in times:
            at = jax.tree.map(lambda values, time=time: values[time], inputs)
            chains, one = _single(settings, arguments, keys, chains, at)
            told.append(one)
        used, accepted = (jnp.stack(values) for values in zip(*told, strict=True))
    return Annealed(chains.log_weights, chains.u, jnp.exp(used), jnp.mean(accepted, axis=0))


def _transition(
    settings: _Settings, arguments: Any, keys: Any, chains: _Chains, inputs: Any
) -> tuple[_Chains, tuple[Array, Array]]:
    """One temperature on: the weight of the step, then a Hamiltonian move that leaves the new distribution as it is."""
    before, beta, time, given_size, tune = inputs
    log_size = jnp.where(tune, chains.log_size, given_size)
    log_weights = chains.log_weights + (beta - before) * (chains.value - _log_start(chains.u))
    folded = jax.vmap(jax.vmap(lambda key: jax.random.fold_in(key, time)))(keys)
    momentum, uniform = jax.vmap(jax.vmap(functools.partial(_noise, chains.u.shape[2:])))(folded)
    size = jnp.exp(log_size).reshape(-1, *[1] * (chains.u.ndim - 1))
    force = lambda u, gradient: beta * gradient - (1 - beta) * u  # noqa: E731

    def leap(moving: Any, share: Array) -> tuple[Any, None]:
        u, velocity, _, _ = moving
        u = u + size * velocity
        value, gradient = _evaluate(settings.target, arguments, u)
        return (u, velocity + share * size * force(u, gradient), value, gradient), None

    velocity = momentum + 0.5 * size * force(chains.u, chains.gradient)
    shares = np.ones(settings.leapfrog_steps, np.float32)
    shares[-1] = 0.5
    start = chains.u, velocity, chains.value, chains.gradient
    (u, velocity, value, gradient), _ = jax.lax.scan(leap, start, shares, unroll=settings.unroll)
    energy = lambda u, value, velocity: (1 - beta) * _log_start(u) + beta * value + _log_start(velocity)  # noqa: E731
    log_ratio = energy(u, value, velocity) - energy(chains.u, chains.value, momentum)
    # A diverged move has a ratio of NaN: it compares as false, and stays where it was.
    taken = jnp.log(uniform) < log_ratio
    accepted = jnp.mean(jnp.where(jnp.isnan(log_ratio), 0.0, jnp.exp(jnp.minimum(log_ratio, 0.0))), axis=1)
    keep = lambda new, old: jnp.where(taken.reshape(*taken.shape, *[1] * (new.ndim - 2)), new, old)  # noqa: E731
    moved = [keep(*pair) for pair in ((u, chains.u), (value, chains.value), (gradient, chains.gradient))]
    next_size = log_size + TUNING_RATE * (accepted - ACCEPTANCE)
    return _Chains(*moved, log_weights, next_size), (log_size, accepted)


def _rolled(
    settings: _Settings, arguments: Any, keys: Any, chains: _Chains, inputs: Any
) -> tuple[_Chains, tuple[Array, Array]]:
    return jax.lax.scan(functools.partial(_transition, settings, arguments, keys), chains, inputs)


def _evaluate(target: Target, arguments: Any, u: Array) -> tuple[Array, Array]:
    """The target's value and its gradient, by chain."""

    def total(u: Array) -> tuple[Array, Array]:
        values = target(arguments, u)
        return jnp.sum(values), values

    gradient, values = jax.grad(total, has_aux=True)(u)
    return values, gradient


def _log_start(u: Float[Array, "B C ..."]) -> Float[Array, "B C"]:
    """log N(u; 0, I)."""
    flat = u.reshape(*u.shape[:2], -1)
    return -0.5 * jnp.sum(flat**2, axis=-1) - 0.5 * flat.shape[-1] * math.log(2 * math.pi)


def _noise(shape: tuple[int, ...], key: Key[Array, ""]) -> tuple[Array, Array]:
    first, second = jax.random.split(key)
    return jax.random.normal(first, shape), jax.random.uniform(second)


_all = jax.jit(_rolled, static_argnums=0)
_single = jax.jit(_transition, static_argnums=0)
_value = jax.jit(_evaluate, static_argnums=0)
