"""What an autoencoder pays for information: functions of KL(q(z | x) || p(z)) that the objective weighs by beta."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from latent.autoencoding.contract import flat
from latent.errors import UserError, unknown_name
from latent.types import Context

Rate = Callable[[Float[Array, "B"], Float[Array, "B ..."] | None, Context, Any], Float[Array, ""]]
"""(KL of every example, KL of every dimension where it is known, context, the player's hparams) -> rate, nats."""


def _ramp(steps: int, key: str) -> Callable[[Context], Any]:
    if steps < 0:
        raise UserError(f"model.{key}={steps} must not be negative (0: no ramp).")
    return lambda context: jnp.minimum(1.0, context.step / steps) if steps else 1.0


def _kl(section: Any) -> Rate:
    """beta KL, beta growing linearly over `model.kl_warmup_steps` (Higgins et al. 2017; Bowman et al. 2016)."""
    ramp = _ramp(section.kl_warmup_steps, "kl_warmup_steps")
    return lambda kl, dimensions, context, hparams: ramp(context) * hparams["beta"] * jnp.mean(kl)


def _free_bits(section: Any) -> Rate:
    """The KL with a floor under each dimension's mean over the global batch (Kingma et al. 2016, appendix C.8)."""
    ramp = _ramp(section.kl_warmup_steps, "kl_warmup_steps")

    def rate(kl: Any, dimensions: Any, context: Context, hparams: Any) -> Float[Array, ""]:
        mean = context.mean(jnp.mean(flat(dimensions, 1), axis=0))
        return ramp(context) * hparams["beta"] * jnp.sum(jnp.maximum(mean, hparams["free_bits"]))

    return rate


def _capacity(section: Any) -> Rate:
    """The distance of the KL to a capacity that grows over `model.capacity_steps` (Burgess et al. 2018, eq. 8)."""
    ramp = _ramp(section.capacity_steps, "capacity_steps")

    def rate(kl: Any, dimensions: Any, context: Context, hparams: Any) -> Float[Array, ""]:
        return hparams["beta"] * jnp.abs(context.mean(jnp.mean(kl)) - ramp(context) * hparams["capacity"])

    return rate


RATES = {"kl": _kl, "free_bits": _free_bits, "capacity": _capacity}


def make(section: Any, has_density: bool, has_dimensions: bool) -> Rate | None:
    """Builds `model.rate`: kl | free_bits | capacity, or None for "none".

    Raises UserError where the bottleneck has no posterior density, or the prior no KL of every dimension.
    """
    name = section.rate
    if name == "none":
        return None
    if name not in RATES:
        raise unknown_name("model.rate", name, ["none", *RATES])
    if not has_density:
        raise UserError(
            f"model.rate={name!r} weighs a KL, and model.bottleneck={section.bottleneck!r} has no posterior density: "
            "set model.rate=none."
        )
    if name == "free_bits" and not has_dimensions:
        raise UserError(
            f"model.rate='free_bits' needs the KL of every dimension, which model.prior={section.prior!r} does not "
            "give: set model.prior=standard_normal or another model.rate."
        )
    return RATES[name](section)
