"""Where in t one samples: grids of S + 1 times from noise to data, for S steps.

The denoiser is asked at the first S times; the last is where the sample ends: 0, the data, unless `to_data=False`,
where a grid ends at its own last point. On a discrete table trailing, leading and linspace hit its points exactly, the
others lie between them where they must.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from latent.diffusion.schedules import Path, Real
from latent.errors import UserError, unknown_name

Grid = Float[Array, "T"]


def trailing(path: Path, num_steps: int) -> Grid:
    """Evenly spaced from 1 to 0: the right choice for few steps (Lin et al. 2024, section 3.3).

    Where that would ask a net below the path's min_time, it is `linear`.
    """
    size = _table(path, num_steps)
    steps = np.linspace(1.0, 0.0, num_steps + 1)
    if steps[-2] < path.min_time:
        return linear(path, num_steps)
    return jnp.asarray(steps if size is None else np.round(steps * size) / size)


def leading(path: Path, num_steps: int, offset: int = 0, skip_last: bool = False, to_data: bool = True) -> Grid:
    """Every T // S-th point of a table from the first one up; the noisy end is left out (DDIM's and LDM's grid).

    `offset` shifts all points (1 in LDM). With `skip_last` S + 1 points are spaced and the last is not visited, as
    DPM-Solver does. Without `to_data` the sample ends at the table's first point instead of at 0.
    """
    size = _need_table(path, num_steps, "leading")
    stride = size // (num_steps + skip_last)
    if stride * (num_steps - 1 + skip_last) + offset >= size:
        raise UserError(f"offset={offset} leads past the schedule's {size} steps at steps={num_steps}.")
    index = np.arange(num_steps + skip_last)[::-1][:num_steps] * stride + offset
    return _with_end((index + 1) / size, 0.0 if to_data else 1 / size)


def linspace(path: Path, num_steps: int, skip_last: bool = False) -> Grid:
    """S times from 1 to min_time, both included, then 0. With `skip_last` min_time itself is not visited."""
    size = _table(path, num_steps)
    if size is None:
        return _with_end(np.linspace(1.0, path.min_time, num_steps + skip_last)[:num_steps], 0.0)
    points = num_steps + skip_last
    index = np.round(np.linspace(0 if points > 1 else size - 1, size - 1, points))[::-1][:num_steps]
    return _with_end((index + 1) / size, 0.0)


def linear(path: Path, num_steps: int, start: Real = 1.0, end: Real | None = None, to_data: bool = True) -> Grid:
    """Evenly spaced in t from `start` to `end` (min_time) and then 0; without `to_data` S steps from start to end.

    On `schedules.edm` this is EDM's grid. For a rectified flow's equal steps down to 0 use `trailing`.
    """
    _table(path, num_steps)
    end = path.min_time if end is None else end
    if not 0 <= end < start <= 1:
        raise UserError(f"start={start}, end={end} must satisfy 0 <= end < start <= 1.")
    return _spaced(lambda places: places, start, end, num_steps, to_data)


def log_snr(path: Path, num_steps: int, start: Real = 1.0, end: Real | None = None, to_data: bool = True) -> Grid:
    """Evenly spaced in log-SNR between two times (Lu et al. 2022, arXiv 2206.00927, section 3.3), then 0."""
    _table(path, num_steps)
    ends = jnp.asarray([start, path.min_time if end is None else end])
    high, low = _finite_levels(path, ends)
    return _spaced(path.time, high, low, num_steps, to_data)


def karras(
    path: Path,
    num_steps: int,
    sigma_min: Real | None = None,
    sigma_max: Real | None = None,
    rho: Real = 7.0,
) -> Grid:
    """(sigma / alpha)^(1 / rho) evenly spaced from sigma_max to sigma_min, then 0 (Karras et al. 2022, eq. 5).

    The ends are those of the path where they are not given.
    """
    _table(path, num_steps)
    if sigma_min is not None and sigma_max is not None and not 0 < sigma_min < sigma_max:
        raise UserError(f"sigma_min={sigma_min} must be positive and below sigma_max={sigma_max}.")
    levels = _finite_levels(path, jnp.asarray([1.0, path.min_time]))
    high = jnp.exp(-0.5 * levels[0]) if sigma_max is None else jnp.asarray(sigma_max, float)
    low = jnp.exp(-0.5 * levels[1]) if sigma_min is None else jnp.asarray(sigma_min, float)
    back = lambda places: path.time(-2.0 * rho * jnp.log(places))  # noqa: E731
    return _spaced(back, high ** (1 / rho), low ** (1 / rho), num_steps, True)


GRIDS: dict[str, Callable[..., Grid]] = {
    "trailing": trailing,
    "leading": leading,
    "linspace": linspace,
    "linear": linear,
    "log_snr": log_snr,
    "karras": karras,
}
"""Grids by name: (path, num_steps, **options) -> times [S + 1], strictly decreasing."""


def find(name: str, key: str = "grid") -> Callable[..., Grid]:
    """The grid that the flag or config key `key` names; raises UserError for a wrong name."""
    if name not in GRIDS:
        raise unknown_name(key, name, GRIDS)
    return GRIDS[name]


def _spaced(back: Callable, start: Array | float, end: Array | float, num_steps: int, to_data: bool) -> Grid:
    """`back` of places evenly spaced between two ends that both are hit, then time 0 if asked."""
    share = np.linspace(0.0, 1.0, num_steps + (not to_data))

    @jax.jit
    def times(start: Array, end: Array) -> Grid:
        inner = back(start * (1.0 - share) + end * share)
        return jnp.append(inner, 0.0) if to_data else inner

    return times(jnp.asarray(start, float), jnp.asarray(end, float))


def _with_end(times: np.ndarray, end: Real) -> Grid:
    grid = np.append(times, end)
    if (np.diff(grid) >= 0).any():
        raise UserError(f"steps={len(times)}: with these options two points of the grid would be the same.")
    return jnp.asarray(grid)


def _finite_levels(path: Path, t: Float[Array, "T"]) -> Float[Array, "T"]:
    """log-SNR at t, kept to what numbers can tell apart where it is infinite: a path that ends in pure noise starts at
    the noise level 1000."""
    return jnp.maximum(path.log_snr(t), -2.0 * np.log(1000.0))


def _table(path: Path, num_steps: int) -> int | None:
    """The number of points of the path's table, if it has one; refuses what it cannot serve."""
    if num_steps < 1:
        raise UserError(f"steps={num_steps} must be at least 1.")
    if path.num_timesteps is not None and num_steps > path.num_timesteps:
        raise UserError(f"steps={num_steps} exceeds the schedule's {path.num_timesteps} steps.")
    return path.num_timesteps


def _need_table(path: Path, num_steps: int, name: str) -> int:
    size = _table(path, num_steps)
    if size is None:
        raise UserError(f"grid={name!r} needs a schedule of discrete steps. Allowed here: trailing, linspace, linear.")
    return size
