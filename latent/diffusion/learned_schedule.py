"""The learned path of variational diffusion models: log-SNR is minus a monotone network of t.

Kingma et al. 2021 (arXiv 2107.00630), section 4.1 and appendix H: gamma(t) = -log_snr(t), rescaled so that its ends are
parameters of their own. Only the ends change the continuous-time bound; what lies between changes its variance.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from latent.diffusion.schedules import Path, Real, Time
from latent.errors import UserError

BISECTIONS = 40


def init(key: Key[Array, ""], hidden: int = 1024, log_snr_max: Real = 13.3, log_snr_min: Real = -5.0) -> Any:
    """Parameters: the two ends, and three layers whose weights enter through softplus, so gamma is increasing."""
    if not log_snr_min < log_snr_max:
        raise UserError(f"log_snr_min={log_snr_min} must be below log_snr_max={log_snr_max}.")
    first, second = jax.random.split(key)
    # softplus(-6 .. -4) ~ 0.01: the curved part starts small next to the straight one.
    return {
        "ends": jnp.array([-log_snr_max, -log_snr_min]),
        "slope": jnp.array(0.5),
        "inner": {"weight": jax.random.uniform(first, (hidden,), minval=-1.0, maxval=2.0), "bias": jnp.zeros(hidden)},
        "outer": jax.random.uniform(second, (hidden,), minval=-6.0, maxval=-4.0),
    }


def _curve(params: Any, t: Float[Array, "..."]) -> Float[Array, "..."]:
    straight = jax.nn.softplus(params["slope"]) * t
    inner = params["inner"]
    hidden = jax.nn.sigmoid(jax.nn.softplus(inner["weight"]) * straight[..., None] + inner["bias"])
    return straight + hidden @ jax.nn.softplus(params["outer"])


def learned(params: Any) -> Path:
    """The path of some parameters: variance preserving, with finite log-SNR at both ends (x_0 keeps a little noise)."""

    def gamma(t: Time) -> Time:
        low, high = _curve(params, jnp.zeros((), t.dtype)), _curve(params, jnp.ones((), t.dtype))
        start, end = params["ends"]
        return start + (end - start) * (_curve(params, t) - low) / (high - low)

    def time(level: Float[Array, "..."]) -> Time:
        def halve(_: Any, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bracket
            middle = 0.5 * (low + high)
            above = gamma(middle) > -level
            return jnp.where(above, low, middle), jnp.where(above, middle, high)

        ends = jnp.zeros_like(level), jnp.ones_like(level)
        t = jax.lax.stop_gradient(0.5 * sum(jax.lax.fori_loop(0, BISECTIONS, halve, ends)))
        # One Newton step: it sharpens the root and gives it its derivative.
        value, slope = jax.jvp(gamma, (t,), (jnp.ones_like(t),))
        return jnp.clip(t - (value + level) / jax.lax.stop_gradient(slope), 0.0, 1.0)

    return Path(
        alpha=lambda t: jnp.sqrt(jax.nn.sigmoid(-gamma(t))),
        sigma=lambda t: jnp.sqrt(jax.nn.sigmoid(gamma(t))),
        log_snr=lambda t: -gamma(t),
        time=time,
        min_time=1e-3,
    )
