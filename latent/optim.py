"""Config block -> optax chain, learning-rate schedule, averages of the weights.

An optax chain built here ends without a learning rate: `step.py` multiplies its updates by
-schedule(step) * hparams[player]["learning_rate"], so that the rate is a scalar of the state (sweepable in one
program) and schedules read the step, which accumulation, `every` and skipped steps never shift.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from latent.errors import UserError, unknown_name

SCALE_PREFIX = "scale_by_"
OWN_RATE = ("prodigy",)
"""Optimisers that determine their own rate; their updates are multiplied by the schedule alone."""


class Optimizer(NamedTuple):
    """One player's optimiser: the gradient transformation, its schedule (step -> factor), and whether the
    transformation has a learning rate of its own."""

    transform: optax.GradientTransformation
    schedule: Callable[[Int[Array, ""]], Float[Array, ""]]
    owns_rate: bool = False


class Average(NamedTuple):
    """A moving average of the weights: step -> decay, for average <- decay * average + (1 - decay) * weights."""

    decay: Callable[[Int[Array, ""]], Float[Array, ""]]


def optimizer(block: Any, where: str, horizon: int) -> Optimizer:
    """Builds the optimiser of the config block at `where` ("optimizer.autoencoder").

    The block has `name` ("sgd", or any optax `scale_by_<name>`), `options` (keyword arguments of that optax
    function), `clip_norm`, `weight_decay` (decoupled, Loshchilov & Hutter 2019) and `schedule`.
    """
    name, options = block.name, dict(block.options)
    for key, value in (("clip_norm", block.clip_norm), ("weight_decay", block.weight_decay)):
        if value < 0:
            raise UserError(f"{where}.{key}={value} must not be negative (0: off).")
    if name in OWN_RATE and block.weight_decay:
        raise UserError(f"{where}.weight_decay: {name!r} sets its own rate; give its weight decay in options.")
    parts = []
    if block.clip_norm:
        parts.append(optax.clip_by_global_norm(block.clip_norm))
    parts.append(_scaling(name, options, where))
    if block.weight_decay:
        parts.append(optax.add_decayed_weights(block.weight_decay))
    owns_rate = name in OWN_RATE
    return Optimizer(optax.chain(*parts), schedule(block.schedule, f"{where}.schedule", horizon), owns_rate)


def _scaling(name: str, options: dict[str, Any], where: str) -> optax.GradientTransformation:
    known = {key.removeprefix(SCALE_PREFIX) for key in dir(optax) if key.startswith(SCALE_PREFIX)}
    known -= {"learning_rate", "schedule", "polyak"}  # they need more than gradients and weights
    try:
        if name == "sgd":
            return optax.trace(options.pop("momentum"), **options) if options else optax.identity()
        if name in OWN_RATE:
            # step.py subtracts updates, optax's complete optimisers already carry the minus sign.
            return optax.chain(getattr(optax.contrib, name)(**options), optax.scale(-1.0))
        if name in known:
            return getattr(optax, SCALE_PREFIX + name)(**options)
    except (TypeError, KeyError) as error:
        raise UserError(f"{where}.options={options} does not fit {name!r}: {error}.") from error
    raise unknown_name(f"{where}.name", name, known | {"sgd", *OWN_RATE})


def schedule(block: Any, where: str, horizon: int) -> Callable[[Int[Array, ""]], Float[Array, ""]]:
    """Builds a schedule: step -> factor in [0, 1] on the learning rate.

    Kinds: "constant"; "cosine" (half a cosine to `final_factor` at `horizon`, which is its own key so that
    extending a run keeps the final rate); "piecewise" (`factors[i]` holds until step `boundaries[i]`). Each starts
    with `warmup_steps` of linear warm-up.
    """
    warmup = block.warmup_steps
    if warmup < 0:
        raise UserError(f"{where}.warmup_steps={warmup} must not be negative.")
    if block.name == "constant":
        body = optax.constant_schedule(1.0)
    elif block.name == "cosine":
        length = (block.horizon or horizon) - warmup
        if length <= 0:
            raise UserError(f"{where}.horizon={block.horizon or horizon} must exceed warmup_steps={warmup}.")
        body = optax.cosine_decay_schedule(1.0, length, alpha=block.final_factor)
    elif block.name == "piecewise":
        boundaries, factors = tuple(block.boundaries), tuple(block.factors)
        if len(factors) != len(boundaries) + 1:
            raise UserError(f"{where}.factors={factors} needs one value more than boundaries={boundaries}.")
        body = optax.join_schedules([optax.constant_schedule(f) for f in factors], [b - warmup for b in boundaries])
    else:
        raise unknown_name(f"{where}.name", block.name, ("constant", "cosine", "piecewise"))
    if not warmup:
        return body
    # The first step moves too: warm-up reaches (step + 1) / warmup_steps, not step / warmup_steps.
    ramp = optax.linear_schedule(1.0 / warmup, 1.0, warmup - 1) if warmup > 1 else optax.constant_schedule(1.0)
    return optax.join_schedules([ramp, body], [warmup])


def averages(block: Any) -> dict[str, Average]:
    """The moving averages that the config block `ema` asks for, by the name under which the state keeps them.

    `decays`: constant decay with warm-up min(decay, (1 + t) / (10 + t)). `relative_widths`: the power function of
    Karras et al. 2024 (EDM2, section 3.1), whose width is a fraction of the training time.
    """
    chosen = {}
    for decay in block.decays:
        if not 0.0 < decay < 1.0:
            raise UserError(f"ema.decays={tuple(block.decays)}: every decay lies strictly between 0 and 1.")
        chosen[f"{decay:g}"] = Average(_warmed_decay(decay))
    for width in block.relative_widths:
        if not 0.0 < width < 0.28:
            raise UserError(f"ema.relative_widths={tuple(block.relative_widths)}: a width lies in (0, 0.28).")
        chosen[f"width_{width:g}"] = Average(_power_decay(power_exponent(width)))
    return chosen


def _warmed_decay(decay: float) -> Callable[[Int[Array, ""]], Float[Array, ""]]:
    return lambda step: jnp.minimum(decay, (1.0 + step) / (10.0 + step))


def _power_decay(exponent: float) -> Callable[[Int[Array, ""]], Float[Array, ""]]:
    # Eq. 2 of EDM2: beta(t) = (1 - 1/t)^(gamma + 1) at the t-th update, so the first one forgets the initial weights.
    return lambda step: (1.0 - 1.0 / (step + 1.0)) ** (exponent + 1.0)


def power_exponent(width: float) -> float:
    """gamma of the power function whose relative standard deviation is `width` (EDM2, eq. 3 and algorithm 2)."""
    # sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)); one positive root: bisect, it falls with gamma.
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        if (middle + 1) / ((middle + 2) ** 2 * (middle + 3)) > width**2:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def update_average(average: PyTree, current: PyTree, decay: Float[Array, ""]) -> PyTree:
    """decay * average + (1 - decay) * current, on floating leaves; the others follow `current`."""

    def mix(old: Array, new: Array) -> Array:
        if not jnp.issubdtype(new.dtype, jnp.floating):
            return new
        return (old + (1.0 - decay) * (new - old)).astype(new.dtype)

    return jax.tree.map(mix, average, current)
