"""Which config keys a run reads, and what was overridden in vain (law 12)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from latent import rng
from latent.config import Section
from latent.errors import UserError
from latent.step import Recipe
from latent.types import Batch, Context, Hparams, State

ENGINE_KEYS = (
    "seed",
    "train.",
    "parallel.",
    "checkpoint.",
    "log.",
    "data.device_budget",
    "data.workers",
    "data.encode_once",
    "ema.snapshot_every",
    "eval.every",
    "eval.batch_size",
)
"""Keys that every run reads while it trains, whatever was built."""


def check(overridden: Iterable[str], section: Section, scalars_read: Callable[[], set[str]]) -> None:
    """Raises UserError for overridden keys that nothing reads: nothing that was built from `section`, and no loss or
    optimiser (`scalars_read`, asked only where there are scalars of theirs among the keys)."""
    overridden = set(overridden)
    if scalars := {key for key in overridden if key.startswith("hparams.")}:
        section.read.difference_update(scalars)
        section.read.update(scalars_read())
    ignored = [key for key in overridden - section.read if not key.startswith(ENGINE_KEYS)]
    if ignored:
        raise UserError(
            f"{', '.join(sorted(ignored))}: set on the command line, but nothing in this run reads it "
            "(another choice of data, net, objective or schedule would)."
        )


class _Recorder(dict):
    """A dict of hparams that remembers which were read."""

    def __init__(self, values: Mapping[str, Any], prefix: str, read: set[str]):
        super().__init__(
            {k: _Recorder(v, f"{prefix}{k}.", read) if isinstance(v, dict) else v for k, v in values.items()}
        )
        self._prefix, self._read = prefix, read

    def __getitem__(self, key: str) -> Any:
        self._read.add(self._prefix + key)
        return super().__getitem__(key)


def scalars_read(hparams: Hparams, recipe: Recipe, state: State, batch: Batch) -> set[str]:
    """Config keys of the scalars that the losses and optimisers read, found by tracing every loss once; `state` and
    `batch` may be abstract."""
    read: set[str] = set()
    recorder = _Recorder(hparams, "hparams.", read)
    same = lambda tree: tree  # noqa: E731
    for player in recipe.model.players:
        if not recipe.optimizers[player.name].owns_rate:
            read.add(f"hparams.{player.name}.learning_rate")

        def trace(state: State, batch: Any, player=player):
            streams = rng.training_stream(0, 0, player.name, batch["position"])
            context = Context(streams, state.step, recorder, True, same, same)
            return player.loss(state.params, state.extra, batch, context).objective

        jax.eval_shape(trace, state, batch)
    return read
