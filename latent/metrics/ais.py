"""log p(x) by annealed importance sampling with Hamiltonian moves (Wu et al. 2017, arXiv 1611.04273)."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from latent import rng
from latent.errors import unknown_name
from latent.evaluation_data import EvaluationData
from latent.metrics import annealing, passport
from latent.types import Batch, Context, Extra, Model, Params, State

needs = {"log_joint", "encode.log_scale"}
STARTS = ("posterior", "standard_normal")
TUNING_CHAINS = 4


def names(options: Any) -> tuple[str, ...]:
    """Names of the results; UserError for options that make no sense."""
    passport.require_counts("ais", options, distributions=2, chains=1, leapfrog=1, limit=0, batch=1)
    if options.start not in STARTS:
        raise unknown_name("ais.start", options.start, STARTS)
    return (f"ais_{options.distributions}", "ais_acceptance")


def _posterior(model: Model, params: Params, extra: Extra, batch: Batch, context: Context) -> dict[str, Array]:
    keys = context.keys("ais")
    latent = model.encode(params, extra, batch["x"], keys)
    return {"x": batch["x"], "mean": latent.mean, "log_scale": latent.info["log_scale"], "index": batch["index"]}


def log_target(model: Model, arguments: dict[str, Any], u: Float[Array, "B C ..."]) -> Float[Array, "B C"]:
    """log p(x, z) of z = mean + scale u, as a density of u."""
    mean, log_scale, x = (arguments[name][:, None] for name in ("mean", "log_scale", "x"))
    z = mean + jnp.exp(log_scale) * u
    flat = lambda values: values.reshape(-1, *values.shape[2:])  # noqa: E731
    repeated = jnp.broadcast_to(x, (*u.shape[:2], *x.shape[2:]))
    joint = model.log_joint(arguments["params"], arguments["extra"], flat(repeated), flat(z)).reshape(u.shape[:2])
    return joint + jnp.sum(log_scale.reshape(len(u), 1, -1), axis=-1)


def chain_keys(seed: int, index: np.ndarray, count: int) -> Key[Array, "B C"]:
    """By example and chain: no estimate depends on the batch it was made in."""
    streams = rng.evaluation_stream(seed, index)("ais")
    return jax.vmap(lambda key: jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(count)))(streams)


def estimate(
    target: annealing.Target,
    arguments: dict[str, Any],
    shape: tuple[int, ...],
    keys: Key[Array, "B C"],
    betas: Float[np.ndarray, "T"],
    leapfrog: int,
) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
    """log of the target's constant for every example, and the acceptance rate."""
    found = _forward(target, arguments, shape, keys, betas, leapfrog)
    return _log_mean(found.log_weights), found.acceptance


def both_bounds(
    target: annealing.Target,
    arguments: dict[str, Any],
    exact: Float[Array, "B C ..."],
    keys: Key[Array, "B C"],
    betas: Float[np.ndarray, "T"],
    leapfrog: int,
) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
    """What bounds log of the target's constant from below and from above, in expectation; `exact` are draws of the
    target, from which the way back starts with the step sizes of the way there."""
    found = _forward(target, arguments, exact.shape[2:], keys, betas, leapfrog)
    back = annealing.anneal(target, arguments, exact, _fold(keys, 4), betas[::-1], leapfrog, found.sizes[::-1])
    return _log_mean(found.log_weights), -_log_mean(back.log_weights)


def _forward(
    target: annealing.Target,
    arguments: dict[str, Any],
    shape: tuple[int, ...],
    keys: Key[Array, "B C"],
    betas: Float[np.ndarray, "T"],
    leapfrog: int,
) -> annealing.Annealed:
    """Step sizes come from a pass of their own with other noise, so that the chains of the estimate are Markov and
    their weights unbiased."""
    start = lambda folded: rng.normal(folded.reshape(-1), *shape).reshape(*folded.shape, *shape)  # noqa: E731
    tuning = keys[:, : min(TUNING_CHAINS, keys.shape[1])]
    tuned = annealing.anneal(target, arguments, start(_fold(tuning, 0)), _fold(tuning, 1), betas, leapfrog)
    return annealing.anneal(target, arguments, start(_fold(keys, 2)), _fold(keys, 3), betas, leapfrog, tuned.sizes)


def _fold(keys: Key[Array, "B C"], number: int) -> Key[Array, "B C"]:
    return jax.vmap(jax.vmap(lambda key: jax.random.fold_in(key, number)))(keys)


def _log_mean(log_weights: Float[Array, "B C"]) -> Float[Array, "B"]:
    return jax.nn.logsumexp(log_weights, axis=1) - jnp.log(log_weights.shape[1])


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Mean over the first `options.limit` examples (0: all) of the log of the mean weight of `options.chains` chains
    over `options.distributions` distributions, nats: a lower bound in expectation, tight as both grow.

    `options.start`: the path begins at q(z|x) ("posterior", far shorter paths do) or at N(0, I) ("standard_normal", the
    prior in the paper); `options.leapfrog` steps a move; `options.batch` examples are worked on at a time.
    """
    found = data.map(_posterior, state, limit=options.limit)
    if options.start == "standard_normal":
        found |= {"mean": np.zeros_like(found["mean"]), "log_scale": np.zeros_like(found["log_scale"])}
    betas, target = annealing.temperatures(options.distributions), functools.partial(log_target, model)
    arguments = {"params": state.params, "extra": state.extra}
    bounds, rates = [], []
    count = len(found["x"])
    for first in range(0, count, options.batch):
        rows = np.minimum(np.arange(first, first + options.batch), count - 1)  # one shape, hence one compilation
        part = {name: values[rows] for name, values in found.items()}
        keys = chain_keys(data.seed, part["index"], options.chains)
        told = estimate(target, arguments | part, part["mean"].shape[1:], keys, betas, options.leapfrog)
        bounds.append(np.asarray(told[0]))
        rates.append(np.asarray(told[1]))
    settings = {name: options[name] for name in ("distributions", "chains", "leapfrog", "start")}
    protocol = data.protocol | settings
    bound, rate = names(options)
    return [
        passport.mean(bound, np.concatenate(bounds)[:count], "nats", protocol),
        passport.mean(rate, np.concatenate(rates)[:count], "share", protocol),
    ]
