"""log p(x) of simulated data from both sides: bidirectional Monte Carlo (Grosse et al. 2015, arXiv 1511.02543).

Where x is drawn with its z from p(x, z), that z is an exact draw of the posterior. Annealing forwards bounds log p(x)
from below and backwards, from that draw, from above. The gap between the two bounds how far `ais` is off with the same
settings, on data that the model itself would make (Wu et al. 2017, arXiv 1611.04273, section 4.2).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from latent import rng
from latent.errors import unknown_name
from latent.evaluation_data import EvaluationData
from latent.metrics import ais, annealing, passport
from latent.types import Extra, Model, Params, State

needs = {"log_joint", "simulate", "encode.log_scale"}


def names(options: Any) -> tuple[str, ...]:
    """Names of the results; UserError for options that make no sense."""
    passport.require_counts("bdmc", options, distributions=2, chains=1, leapfrog=1, num_samples=2, batch=1)
    if options.start not in ais.STARTS:
        raise unknown_name("bdmc.start", options.start, ais.STARTS)
    return tuple(f"bdmc_{side}_{options.distributions}" for side in ("lower", "upper", "gap"))


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Means of both bounds and of their gap over `options.num_samples` simulated examples, nats; the other options are
    those of `ais`. The split is not looked at: the passport says that the data are simulated."""
    parts = []
    for first in range(0, options.num_samples, options.batch):
        rows = np.arange(first, first + options.batch)  # one shape, hence one compilation
        parts.append(jax.device_get(_bounds(model, state, data.seed, rows, options)))
    lower, upper = (np.concatenate(side)[: options.num_samples] for side in zip(*parts, strict=True))
    settings = {name: options[name] for name in ("distributions", "chains", "leapfrog", "start")}
    protocol = data.protocol | {"split": "simulated", "data_sha256": "none"} | settings
    return [
        passport.mean(name, values, "nats", protocol)
        for name, values in zip(names(options), (lower, upper, upper - lower), strict=True)
    ]


def _bounds(
    model: Model, state: State, seed: int, rows: np.ndarray, options: Any
) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
    """Lower and upper bound of log p(x) for every simulated example."""
    simulated = rng.evaluation_stream(seed, rows)("simulate")
    x, z, mean, log_scale = _simulate(model.simulate, model.encode, state.params, state.extra, simulated)
    if options.start == "standard_normal":
        mean, log_scale = jnp.zeros_like(mean), jnp.zeros_like(log_scale)
    arguments = {"params": state.params, "extra": state.extra, "x": x, "mean": mean, "log_scale": log_scale}
    exact = jnp.broadcast_to(((z - mean) * jnp.exp(-log_scale))[:, None], (len(rows), options.chains, *z.shape[1:]))
    betas, target = annealing.temperatures(options.distributions), functools.partial(ais.log_target, model)
    keys = ais.chain_keys(seed, rows, options.chains)
    return ais.both_bounds(target, arguments, exact, keys, betas, options.leapfrog)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _simulate(
    simulate: Callable, encode: Callable, params: Params, extra: Extra, keys: Key[Array, "B"]
) -> tuple[Array, Array, Array, Array]:
    """Draws (x, z) of p(x, z), and the mean and log scale of q(z | x)."""
    x, z = simulate(params, extra, keys)
    latent = encode(params, extra, x, keys)
    return x, z, latent.mean, latent.info["log_scale"]
