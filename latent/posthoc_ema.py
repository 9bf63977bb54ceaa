"""Averages of the weights of any width, chosen after training (Karras et al. 2024, EDM2, arXiv 2312.02696, section 3).

A run keeps power-function averages (`ema.relative_widths`) and saves snapshots of them (`ema.snapshot_every`). Each is
a known mixture of the weights of all steps, so another width is the combination of snapshots whose mixture comes
nearest to its own. Owns `ema/` of a work directory, which no retention touches. Knows no model.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Float, PyTree

from latent.checkpoint import DamagedCheckpoint, digest
from latent.errors import UserError
from latent.optim import power_exponent
from latent.types import State

DIRECTORY = "ema"
PREFIX = "width_"
"""Of the names of power-function averages in a state (`optim.averages`)."""
POSTHOC = "posthoc_"
"""Of the names by which widths that are reconstructed are asked for."""


def cadence(config: Mapping[str, Any]) -> int:
    """Steps between snapshots; 0: none. Raises UserError where there is nothing to take them of."""
    every = config["ema"].get("snapshot_every", 0)  # absent in runs of before there were snapshots
    if every < 0 or (every and not config["ema"]["relative_widths"]):
        raise UserError(f"ema.snapshot_every={every} needs ema.relative_widths, e.g. (0.05, 0.1).")
    return every


class Snapshots:
    """The snapshots of one work directory."""

    def __init__(self, workdir: Path):
        self._directory = Path(workdir, DIRECTORY).absolute()

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        # Made at the first use, because making it creates the directory: reading must not write.
        return ocp.CheckpointManager(self._directory, options=ocp.CheckpointManagerOptions(max_to_keep=None))

    def save(self, state: State) -> None:
        """Saves the power-function averages in the background. A step that is there already is left alone: the run
        that goes on makes the same ones again."""
        step, tree = int(state.step), power_averages(state)
        if step not in self._manager.all_steps():
            meta = ocp.args.JsonSave({"digest": digest(tree)})
            self._manager.save(step, args=ocp.args.Composite(averages=ocp.args.StandardSave(tree), meta=meta))

    def steps(self) -> list[int]:
        """Steps at which there is a snapshot, ascending."""
        return sorted(self._manager.all_steps()) if self._directory.exists() else []

    def restore(self, step: int, target: PyTree) -> dict[str, Any]:
        """The averages saved at `step`. Raises UserError where they cannot be read or are not what was saved."""
        arguments = ocp.args.Composite(averages=ocp.args.StandardRestore(target), meta=ocp.args.JsonRestore())
        try:
            found = self._manager.restore(step, args=arguments)
            if digest(found["averages"]) != found["meta"]["digest"]:
                raise DamagedCheckpoint("its arrays are not those that were saved")
        except Exception as error:  # Orbax and tensorstore raise a dozen kinds
            raise UserError(f"{self._directory / str(step)} cannot be read: {str(error).splitlines()[0]}.") from error
        return found["averages"]

    def close(self) -> None:
        """Waits for pending saves; without it the last one is lost."""
        if "_manager" in self.__dict__:
            self._manager.wait_until_finished()
            self._manager.close()


def power_averages(state: State) -> dict[str, Any]:
    """{name: average} of the state's power-function averages."""
    return {name: average for name, average in state.ema.items() if name.startswith(PREFIX)}


def inner_product(gamma_a: Any, t_a: Any, gamma_b: Any, t_b: Any) -> Any:
    """Integral of p_a p_b with p = (gamma + 1) tau^gamma / t^(gamma + 1) on [0, t] (EDM2, eq. 1, in closed form).

    Arrays that broadcast, float64. Over the steps of a training these profiles are exact: the weight of step k is the
    integral of p over [k - 1, k].
    """
    gamma_a, t_a, gamma_b, t_b = (np.asarray(value, np.float64) for value in (gamma_a, t_a, gamma_b, t_b))
    both = np.minimum(t_a, t_b)
    # Powers of ratios below 1, so that nothing overflows for narrow profiles.
    shape = (both / t_a) ** (gamma_a + 1) * (both / t_b) ** (gamma_b + 1)
    return (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1) * shape / both


def coefficients(
    widths: Sequence[float], steps: Sequence[int], width: float, step: int
) -> tuple[Float[np.ndarray, "S"], float]:
    """What multiplies each snapshot (`widths[i]` at `steps[i]`) so that the mixture is nearest in least squares to the
    profile of `width` at `step` (EDM2, eq. 4), and the distance that remains, relative to that profile's norm."""
    gammas = np.array([power_exponent(each) for each in widths])
    times, gamma = np.asarray(steps, np.float64), power_exponent(width)
    gram = inner_product(gammas[:, None], times[:, None], gammas, times)
    right, norm = inner_product(gammas, times, gamma, step), float(inner_product(gamma, step, gamma, step))
    # Scaled to unit profiles: early snapshots have norms that are larger by orders of magnitude.
    scale = 1.0 / np.sqrt(np.diagonal(gram))
    found = np.linalg.lstsq(gram * scale[:, None] * scale, right * scale, rcond=1e-12)[0] * scale
    residual = norm - 2.0 * found @ right + found @ gram @ found
    return found, float(np.sqrt(max(residual, 0.0) / norm))


def reconstruct(workdir: Path, state: State, name: str) -> State:
    """The state with the weights averaged as `name` ("posthoc_WIDTH") says, from the snapshots up to its step.

    A width that the run tracked is that average itself. Raises UserError for a width that is none, a run without
    snapshots, and a step at which there is none.
    """
    width = _width(name)
    tracked = power_averages(state)
    snapshots = Snapshots(workdir)
    try:
        steps = [step for step in snapshots.steps() if step <= int(state.step)]
        if not tracked or not steps:
            raise UserError(f"average={name!r} needs a run with ema.relative_widths and ema.snapshot_every.")
        if steps[-1] != int(state.step):
            raise UserError(f"average={name!r}: there is no snapshot at step {int(state.step)}. Allowed: {steps}.")
        if f"{PREFIX}{width:g}" in tracked:
            return _with(state, tracked[f"{PREFIX}{width:g}"])
        names = sorted(tracked)
        pairs = [(step, each) for step in steps for each in names]
        weights, _ = coefficients([_width(each) for _, each in pairs], [step for step, _ in pairs], width, steps[-1])
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tracked
        )
        total: Any = None
        for number, step in enumerate(steps):
            found = snapshots.restore(step, target)
            for place, each in enumerate(names):
                total = _add(total, found[each], weights[number * len(names) + place])
    finally:
        snapshots.close()
    return _with(state, jax.tree.map(lambda value, like: jnp.asarray(value, like.dtype), total, tracked[names[0]]))


def _width(name: str) -> float:
    try:
        width = float(name.removeprefix(POSTHOC).removeprefix(PREFIX))
    except ValueError:
        width = -1.0
    if not 0.0 < width < 0.28:
        raise UserError(f"average={name!r} must be {POSTHOC}WIDTH, with a width in (0, 0.28).")
    return width


def _add(total: PyTree, tree: PyTree, weight: float) -> PyTree:
    """total + weight * tree in float64, on floating leaves; the others are those of the latest tree."""

    def mix(new: Any, old: Any) -> Any:
        new = np.asarray(new)
        if not np.issubdtype(new.dtype, np.floating):
            return new
        return old + weight * new.astype(np.float64)

    return jax.tree.map(mix, tree, jax.tree.map(lambda leaf: 0.0, tree) if total is None else total)


def _with(state: State, average: Mapping[str, Any]) -> State:
    return state._replace(params={**state.params, **average["params"]}, extra={**state.extra, **average["extra"]})
