"""Where in t one trains: laws of t, each given by its quantiles, so that each can be stratified over the batch.

An example's time comes from its own key and, where strata are asked for, from its place in the global batch: never from
what else its device holds. Where a discrete table defines the path, times are those of the table.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array, Float, Int, Key

from latent.diffusion.schedules import Path, Real, Time, finite, positive


class Times(NamedTuple):
    """A law of t on (0, 1].

    draw     (path, keys [B], positions [B] in the global batch, its size) -> t [B]; without a size there are no strata
    density  (path, t) -> the law's density: dividing a loss by it gives the loss of t uniform in (0, 1]
    """

    draw: Callable[[Path, Key[Array, "B"], Int[Array, "B"], int | None], Float[Array, "B"]]
    density: Callable[[Path, Time], Time]


def _law(quantile: Callable[[Path, Time], Time], cumulative: Callable[[Path, Time], Time], stratified: bool) -> Times:
    """The law of these quantiles, whose probability of times up to t is `cumulative`."""

    def draw(
        path: Path, keys: Key[Array, "B"], positions: Int[Array, "B"], batch_size: int | None
    ) -> Float[Array, "B"]:
        u = jax.vmap(jax.random.uniform)(keys)
        if stratified and batch_size is not None:
            u = (positions % batch_size + u) / batch_size
        # The open interval: a normal quantile is infinite at both ends.
        t = quantile(path, jnp.clip(u, 1e-7, 1.0 - 1e-7))
        if path.num_timesteps is None:
            return jnp.clip(t, path.min_time, 1.0)
        return jnp.clip(jnp.ceil(t * path.num_timesteps), 1, path.num_timesteps) / path.num_timesteps

    def density(path: Path, t: Time) -> Time:
        if path.num_timesteps is None:
            inside = jnp.clip(t, 1e-6, 1.0 - 1e-6)
            return jax.jvp(partial(cumulative, path), (inside,), (jnp.ones_like(inside),))[1]
        before = cumulative(path, jnp.maximum(t - 1.0 / path.num_timesteps, 0.0))
        # What lies beyond the path's end is drawn as its last time.
        return path.num_timesteps * (jnp.where(t < 1.0, cumulative(path, t), 1.0) - before)

    return Times(draw, density)


def uniform(stratified: bool = False) -> Times:
    """Uniform over the times at which a net is asked anything: the table's, or [min_time, 1]."""
    start = lambda path: path.min_time if path.num_timesteps is None else 0.0  # noqa: E731
    return _law(
        lambda path, u: start(path) + (1.0 - start(path)) * u,
        lambda path, t: (t - start(path)) / (1.0 - start(path)),
        stratified,
    )


def logit_normal(mean: Real = 0.0, std: Real = 1.0, stratified: bool = False) -> Times:
    """log t / (1 - t) ~ N(mean, std^2) (Esser et al. 2024, arXiv 2403.03206, eq. 19); the path's shift comes after."""
    finite("mean", mean)
    positive("std", std)
    return _law(
        lambda path, u: jax.nn.sigmoid(mean + std * ndtri(u)),
        lambda path, t: ndtr((jnp.log(t) - jnp.log1p(-t) - mean) / std),
        stratified,
    )


def log_normal(mean: Real = -1.2, std: Real = 1.2, stratified: bool = False) -> Times:
    """log (sigma / alpha) ~ N(mean, std^2) (Karras et al. 2022, arXiv 2206.00364, table 1), as a time of the path.

    The defaults are EDM's, for data of standard deviation 0.5; for unit variance log 2 more in the mean is the same.
    """
    finite("mean", mean)
    positive("std", std)
    return _law(
        lambda path, u: path.time(-2.0 * (mean + std * ndtri(u))),
        lambda path, t: ndtr((-0.5 * path.log_snr(t) - mean) / std),
        stratified,
    )


def low_discrepancy() -> Times:
    """One uniform time in each of as many strata as the global batch has examples (after Kingma et al. 2021,
    arXiv 2107.00630, appendix I.1, with an offset for each in place of a shared one)."""
    return uniform(stratified=True)


TIMES: dict[str, Callable[..., Times]] = {
    "uniform": uniform,
    "logit_normal": logit_normal,
    "log_normal": log_normal,
    "low_discrepancy": low_discrepancy,
}
"""Laws by name: options -> Times."""


UNIFORM = ("uniform", "low_discrepancy")
"""Laws whose every time is as likely as any other."""
