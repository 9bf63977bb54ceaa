"""From a schedule's name to its path: one for good, or the one that a model's parameters give.

A schedule of `schedules.py` is a path. The learned one is a path for each value of its network, which is a component of
the model's parameters. Whoever needs a path asks `Schedule.of(params)` and never which of the two it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from jaxtyping import Array, Float, Key

from latent.diffusion import learned_schedule, schedules
from latent.diffusion.schedules import Path, Real, Time
from latent.errors import UserError
from latent.types import Params

PATH = "path"
"""Component of params: what a learned path is made of."""


def _as_they_are(
    errors: learned_schedule.Errors, path: Path, weights: Any, t: Time, data: Any
) -> tuple[Float[Array, "B"], Any]:
    return errors(path, weights, t, data)


class Schedule(NamedTuple):
    """A path, or one for each value of parameters that are trained.

    at      the component PATH of params, None where there is none -> the path. What is no function of t in it
            (min_time, num_timesteps, zero_terminal_snr) is the same for all of them, None included
    init    key -> the component; None of a schedule without parameters
    errors  (errors, path, weights, t [B], data) -> errors(path, weights, t, data), with the gradient that trains the
            path's parameters: see `learned_schedule.least_variance`
    """

    at: Callable[[Any], Path]
    init: Callable[[Key[Array, ""]], Any] | None = None
    errors: Callable[..., tuple[Float[Array, "B"], Any]] = _as_they_are

    def of(self, params: Params) -> Path:
        """The path at the parameters of a model."""
        return self.at(params.get(PATH))


def fixed(path: Path) -> Schedule:
    """The schedule of one path, whatever the parameters."""
    return Schedule(lambda params: path)


def learned(hidden: int = 1024, log_snr_max: Real = 13.3, log_snr_min: Real = -5.0) -> Schedule:
    """The learned path: `hidden` units, between two fixed ends; the defaults are the paper's, for pixels.

    Raises UserError for no units and for ends that are not in order.
    """
    if hidden != int(hidden) or hidden < 1:
        raise UserError(f"hidden={hidden} must be an integer, at least 1.")
    ends = {"log_snr_max": log_snr_max, "log_snr_min": log_snr_min}
    learned_schedule.learned(None, **ends)  # refuses wrong ends now
    return Schedule(
        at=lambda params: learned_schedule.learned(params, **ends),
        init=lambda key: learned_schedule.init(key, hidden),
        errors=partial(learned_schedule.least_variance, **ends),
    )


def _fixed_by(make: Callable[..., Path]) -> Callable[..., Schedule]:
    return lambda **options: fixed(make(**options))


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    **{name: _fixed_by(make) for name, make in schedules.SCHEDULES.items()},
    "learned": learned,
}
"""Schedules by name: options -> Schedule."""
