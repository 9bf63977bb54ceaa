"""The learned path of variational diffusion models: log-SNR is minus a monotone network of t. And what trains it.

Kingma et al. 2021 (arXiv 2107.00630), sections 3.2 and 5, appendices H and I. The continuous-time bound is half
the integral of the error in eps over log-SNR (section 5.1): for a denoiser that is told the level, not t, it depends on
the path through its two ends alone. So:

- The ends are options and nothing trains them. The paper trains them by the bound, through its terms of the prior and
  of the reconstruction; of a latent nobody asks a reconstruction's likelihood, and without that term the shortest path
  would win.
- What lies between them cannot change the bound, only the variance of its estimate from one t an example, and with it
  that of every gradient. It is trained to make that small: by the gradient of the squared loss, whose mean is the
  variance and a constant. On average the loss itself has no gradient there.
- The denoiser's weights are trained by the loss itself, as on any path.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from latent.diffusion.schedules import Path, Real, Time
from latent.errors import UserError

BISECTIONS = 40
MIN_TIME = 1e-6
"""Next to nothing: what training never sees below it is no place for the network to hide noise levels in."""


def init(key: Key[Array, ""], hidden: int = 1024) -> Any:
    """Parameters of three layers whose weights enter through softplus, so that gamma is increasing."""
    first, second = jax.random.split(key)
    # softplus(-6 .. -4) ~ 0.01: the curved part starts small next to the straight one.
    return {
        "slope": jnp.array(0.5),
        "inner": {"weight": jax.random.uniform(first, (hidden,), minval=-1.0, maxval=2.0), "bias": jnp.zeros(hidden)},
        "outer": jax.random.uniform(second, (hidden,), minval=-6.0, maxval=-4.0),
    }


def _curve(params: Any, t: Float[Array, "..."]) -> Float[Array, "..."]:
    straight = jax.nn.softplus(params["slope"]) * t
    inner = params["inner"]
    hidden = jax.nn.sigmoid(jax.nn.softplus(inner["weight"]) * straight[..., None] + inner["bias"])
    return straight + hidden @ jax.nn.softplus(params["outer"])


def learned(params: Any, log_snr_max: Real = 13.3, log_snr_min: Real = -5.0) -> Path:
    """The path of some parameters: variance preserving, from log_snr_max right after t = 0 to log_snr_min at t = 1.

    t = 0 itself is the data, as on every path: the last step of a sampler takes off the little noise that log_snr_max
    leaves. A net is told where between its ends log-SNR is. Raises UserError where the ends are not in order.
    """
    if not -math.inf < log_snr_min < log_snr_max < math.inf:
        raise UserError(f"log_snr_min={log_snr_min} must be below log_snr_max={log_snr_max}, both finite.")

    def log_snr(t: Time) -> Time:
        low, high = _curve(params, jnp.zeros((), t.dtype)), _curve(params, jnp.ones((), t.dtype))
        return log_snr_max - (log_snr_max - log_snr_min) * (_curve(params, t) - low) / (high - low)

    def time(level: Float[Array, "..."]) -> Time:
        def halve(_: Any, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bracket
            middle = 0.5 * (low + high)
            above = log_snr(middle) < level
            return jnp.where(above, low, middle), jnp.where(above, middle, high)

        ends = jnp.zeros_like(level), jnp.ones_like(level)
        t = jax.lax.stop_gradient(0.5 * sum(jax.lax.fori_loop(0, BISECTIONS, halve, ends)))
        # One Newton step: it sharpens the root and gives it its derivative.
        value, slope = jax.jvp(log_snr, (t,), (jnp.ones_like(t),))
        return jnp.clip(t - (value - level) / jax.lax.stop_gradient(slope), MIN_TIME, 1.0)

    return _path(log_snr, time, log_snr_max, log_snr_min)


def _pinned(level: Time, slope: Time, times: Time, log_snr_max: Real, log_snr_min: Real) -> Path:
    """A path with that log-SNR and that derivative at the given times: elsewhere its tangent, of use to nobody."""
    line = lambda t: level + slope * (t - times)  # noqa: E731
    return _path(line, lambda found: times + (found - level) / slope, log_snr_max, log_snr_min)


def _path(log_snr: Callable[[Time], Time], time: Callable, log_snr_max: Real, log_snr_min: Real) -> Path:
    return Path(
        alpha=lambda t: jnp.where(t > 0, jnp.sqrt(jax.nn.sigmoid(log_snr(t))), 1.0),
        sigma=lambda t: jnp.where(t > 0, jnp.sqrt(jax.nn.sigmoid(-log_snr(t))), 0.0),
        log_snr=lambda t: jnp.where(t > 0, log_snr(t), jnp.inf),
        time=time,
        min_time=MIN_TIME,
        clock=lambda t: (log_snr_max - log_snr(t)) / (log_snr_max - log_snr_min),
    )


Errors = Callable[[Path, Any, Time, Any], tuple[Float[Array, "B"], Any]]
"""(path, weights of a net, t [B], data) -> the loss of every example at its t, and what else there is to tell."""


def least_variance(
    errors: Errors,
    path: Path,
    weights: Any,
    t: Float[Array, "B"],
    data: Any,
    log_snr_max: Real = 13.3,
    log_snr_min: Real = -5.0,
) -> tuple[Float[Array, "B"], Any]:
    """errors(path, weights, t, data); the gradient of its loss trains the weights to make it small and the path to make
    its variance small.

    An example's loss knows the path through log-SNR and its derivative at its own t. What comes back there is
    multiplied by 2 loss / (log_snr_max - log_snr_min), which makes it the gradient of the squared loss without a second
    backward pass (appendix I). Divided so, a bound in nats per dimension weighs like the loss itself: half that length
    is what a denoiser that says eps = 0 is charged. All arrays that `errors` uses must come through its arguments, and
    no example may know of another.
    """
    level, slope = jax.jvp(path.log_snr, (t,), (jnp.ones_like(t),))

    def pinned(weights: Any, levels: tuple[Time, Time], given: Any) -> tuple[Float[Array, "B"], Any]:
        times, data = given
        return errors(_pinned(*levels, times, log_snr_max, log_snr_min), weights, times, data)

    return _squared_for_levels(pinned, 2.0 / (log_snr_max - log_snr_min), weights, (level, slope), (t, data))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _squared_for_levels(errors: Callable, scale: float, weights: Any, levels: Any, given: Any) -> tuple[Array, Any]:
    return errors(weights, levels, given)


def _forward(errors: Callable, scale: float, weights: Any, levels: Any, given: Any) -> tuple[Any, Any]:
    loss, back, told = jax.vjp(lambda *where: errors(*where, given), weights, levels, has_aux=True)
    return (loss, told), (loss, back)


def _backward(errors: Callable, scale: float, kept: Any, cotangents: Any) -> tuple[Any, Any, None]:
    loss, back = kept
    weights, levels = back(cotangents[0])
    return weights, jax.tree.map(lambda each: scale * loss * each, levels), None


_squared_for_levels.defvjp(_forward, _backward)
