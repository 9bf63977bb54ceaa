"""One split of a data set, streamed through the functions of a model: what every metric is given.

Per-example functions run jitted in the global view, sharded over the devices; noise comes from (seed, stream, index in
the split), so that batch size and device count cannot change a number. Several processes that train together
(hosts.py) go through a part of the split each, on devices of their own, and all then hold the rows of all.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Int, PyTree

from latent import hosts, rng
from latent.data.arrays import Split
from latent.errors import UserError
from latent.types import Batch, Context, Extra, Indices, Model, Params, PrepareFn, State

FACTORS, LABELS, TRAINING = "factors", "labels", "training"
"""What a metric may need that the data must have and not the model: known factors of variation, a class for every
example, the training split beside the one that is evaluated."""
WITHOUT = {
    FACTORS: "{data} has no known factors of variation",
    LABELS: "{data} has no classes",
    TRAINING: "there is no training split beside this one",
}


KEPT_BYTES = 2**24
"""Of examples of a split, that stay on the device between metrics and between the runs of a population."""


class EvaluationData:
    """One split, ready to be streamed through functions of a model.

    `protocol` is what every passport starts from: split, data hash, preprocessing, weights (raw or an average).
    `training` is the training split in the same form, for metrics that fit something or look for copies. `directory` is
    where what follows from a split alone may be kept (None: nowhere).

    `sharding` lays a batch over the devices of this process. With it, processes that train together share the work, and
    must call the same methods in the same order; without, a process does all of it itself.
    """

    def __init__(
        self,
        model: Model,
        split: Split,
        prepare: PrepareFn,
        protocol: Mapping[str, Any],
        *,
        seed: int,
        batch_size: int,
        sharding: NamedSharding | None = None,
        training: EvaluationData | None = None,
        directory: Path | None = None,
    ):
        self.model, self.split, self.seed, self.training = model, split, seed, training
        self.protocol, self.directory, self.sharding = dict(protocol), directory, sharding
        self._prepare, self._batch_size = prepare, batch_size
        if sharding is not None:
            self._batch_size += -batch_size % sharding.num_devices
        self._compiled: dict[Any, Callable] = {}
        self._known: dict[Any, Any] = {}
        self._laid: dict[tuple[int, int], list[tuple[Batch, int]]] = {}
        self._drawn: tuple[Any, int, np.ndarray] | None = None

    def reseeded(self, seed: int) -> EvaluationData:
        """The same data under another seed; what is compiled is shared, for no program knows a seed."""
        other = copy.copy(self)
        other.seed, other._drawn = seed, None
        other.training = self.training and self.training.reseeded(seed)
        preprocessing = self.protocol.get("preprocessing", {})
        if preprocessing.get("dequantise") or preprocessing.get("binarise", "none") != "none":
            other._known = {}  # noise of the seed is in what was computed once
        return other

    def map(
        self,
        function: Callable[..., PyTree],
        state: State,
        *,
        repeat: Sequence[Any] = (),
        limit: int = 0,
        rows: Indices | None = None,
        **static: Any,
    ) -> PyTree:
        """Applies function(model, params, extra, batch, context, **static) to the split: arrays [N, ...], on the host.

        `repeat` calls it once per element instead, given after `context`, and stacks: [R, N, ...]. `limit` stops after
        that many examples; `rows` are the places in the split to go through, all by default. The last batch is padded
        and the padding cut off again. `function` must be one object across calls (a module's function): it is compiled
        once.
        """
        call = self._compile(function, static)
        batches, rows = [], self._rows(limit, rows)
        for raw, keep in self._batches(self._mine(rows)):
            outputs = [call(state, np.uint32(self.seed), raw, *extra) for extra in ([(r,) for r in repeat] or [()])]
            # Cut on the host: a slice on the device is a program of its own.
            batches.append([jax.tree.map(lambda leaf, k=keep: np.asarray(leaf)[:k], output) for output in outputs])
        joined = [
            self._everyones(jax.tree.map(lambda *leaves: np.concatenate(leaves), *column), len(rows))
            for column in zip(*batches, strict=True)
        ]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *joined) if repeat else joined[0]

    def stream(self, function: Callable[..., Array], state: State, *, limit: int = 0) -> np.ndarray:
        """As `map`, for a function that compiles itself: function(params, extra, batch, keys [B]) -> [B, ...]."""
        prepared, parts, rows = self._compile(_prepared, {}), [], self._rows(limit)
        for raw, keep in self._batches(self._mine(rows)):
            batch, keys = prepared(state, np.uint32(self.seed), raw)
            parts.append(np.asarray(function(state.params, state.extra, batch, keys))[:keep])
        return self._everyones(np.concatenate(parts), len(rows))

    def _rows(self, limit: int, rows: Indices | None = None) -> Int[np.ndarray, "n"]:
        """Places in the split to go through."""
        if limit < 0:
            raise UserError(f"limit={limit} must not be negative (0: all examples).")
        rows = np.arange(len(self.split.x)) if rows is None else np.asarray(rows)
        return rows[:limit].astype(np.int32) if limit else rows.astype(np.int32)

    def _share(self, count: int) -> range:
        return range(count) if self.sharding is None else hosts.share(count)

    def _mine(self, rows: Int[np.ndarray, "n"]) -> Int[np.ndarray, "part"]:
        return rows.take(self._share(len(rows)), mode="clip")

    def _everyones(self, tree: PyTree, count: int) -> PyTree:
        return tree if self.sharding is None else hosts.joined(tree, count)

    def _batches(self, rows: Int[np.ndarray, "n"]) -> Iterator[tuple[Batch, int]]:
        """Raw batches of equal size, the last one padded, and how many examples of each are real."""
        parts = (rows[start : start + self._batch_size] for start in range(0, len(rows), self._batch_size))
        laid = ((self._raw(np.pad(part, (0, self._batch_size - len(part)))), len(part)) for part in parts)
        if len(rows) == 0 or not np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
            return laid
        stretch = int(rows[0]), len(rows)
        if stretch not in self._laid:
            kept = sum(length for _, length in self._laid)
            if (kept + len(rows)) * self.split.x[:1].nbytes > KEPT_BYTES:
                return laid
            self._laid[stretch] = list(laid)
        return iter(self._laid[stretch])

    def has(self, need: str, state: State) -> bool:
        """Whether there is what a metric needs: a function of the model ("encode"), one of its terms ("terms.elbo")
        or likelihoods ("likelihoods.vlb"), something its encoder knows ("encode.log_scale"), or something of the data
        ("factors", "labels", "training")."""
        if need in WITHOUT:
            of_data = {
                FACTORS: self.split.factors is not None,
                LABELS: bool(np.all(self.split.label >= 0)),
                TRAINING: self.training is not None,
            }
            return of_data[need]
        function, _, term = need.partition(".")
        offered = getattr(self.model, function)
        if offered is None or isinstance(offered, Mapping):
            return bool(offered) and (not term or term in offered)
        return not term or term in self._output_names(_terms if function == "terms" else _encoder_info, state)

    def terms(self, state: State) -> dict[str, Float[np.ndarray, "N"]]:
        """The model's own terms for every example of the split."""
        return self.map(_terms, state)

    def _output_names(self, function: Callable[..., PyTree], state: State) -> set[str]:
        return set(self.shapes(function, state))

    def shapes(self, function: Callable[..., PyTree], state: State) -> PyTree:
        """Shapes and dtypes of what `map` gives for one example; the state may be abstract."""
        raw = self._raw(np.zeros(1, np.int32), sharded=False)
        return jax.eval_shape(self._compile(function, {}), state, np.uint32(self.seed), raw)

    def once(self, key: Any, compute: Callable[[], Any]) -> Any:
        """compute() the first time, later the same again, under other seeds as well: for what follows from this split
        and `key` alone and not from a model, such as an extractor's features of it."""
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]

    def samples(self, state: State, count: int, classes: int = 0) -> np.ndarray:
        """The model's first `count` samples of this seed, on the host; sample i does not depend on `count`. With
        `classes` sample i is one of class i modulo classes. Metrics share them, until `forget`."""
        drawn = self._drawn
        if drawn is None or drawn[0] is not state or drawn[1] != classes or len(drawn[2]) < count:
            self._drawn = drawn = (state, classes, self._draw(state, count, classes))
        return drawn[2][:count]

    def drawn_by(self, sample: Callable[..., Array]) -> EvaluationData:
        """The same data, whose samples another function than the model's `sample` draws, from the same keys; how the
        model's own are drawn is no part of the protocol."""
        other = copy.copy(self)
        other.model = self.model._replace(sample=sample)
        other.protocol = {name: value for name, value in self.protocol.items() if name != "sampling"}
        other._compiled, other._drawn = {}, None
        return other

    def forget(self) -> None:
        """Lets go of the samples, and of the state they were drawn from."""
        self._drawn = None

    def _draw(self, state: State, count: int, classes: int) -> np.ndarray:
        batches, mine = [], self._share(count)
        for start in mine[:: self._batch_size]:
            numbers = np.arange(start, start + self._batch_size)
            given = (rng.sample_keys(self.seed, numbers), np.int32(numbers % classes) if classes else None)
            given = jax.device_put(given, self.sharding)
            batches.append(np.asarray(self.model.sample(state.params, state.extra, *given)))
        return self._everyones(np.concatenate(batches)[: len(mine)], count)

    def batch(self, count: int) -> Batch:
        """The first `count` prepared examples (pictures of reconstructions)."""
        raw = self._raw(np.arange(min(count, len(self.split.x)), dtype=np.int32), sharded=False)
        if "batch" not in self._compiled:
            self._compiled["batch"] = jax.jit(
                lambda seed, raw: self._prepare(raw, rng.evaluation_stream(seed, raw["index"]), False)
            )
        return self._compiled["batch"](np.uint32(self.seed), raw)

    def _raw(self, index: Indices, sharded: bool = True) -> Batch:
        raw = {part: array[index] for part, array in self.split.arrays().items()} | {"index": index, "position": index}
        return jax.device_put(raw, self.sharding) if self.sharding is not None and sharded else raw

    def _compile(self, function: Callable[..., PyTree], static: Mapping[str, Any]) -> Callable[..., PyTree]:
        known = (function, tuple(sorted(static.items())))
        if known not in self._compiled:

            def call(state: State, seed: Array, raw: Batch, *repeated: Array) -> PyTree:
                streams = rng.evaluation_stream(seed, raw["index"])
                batch = self._prepare(raw, streams, False)
                same = lambda tree: tree  # noqa: E731
                context = Context(streams, state.step, state.hparams, False, same, same)
                return function(self.model, state.params, state.extra, batch, context, *repeated, **static)

            self._compiled[known] = jax.jit(call)
        return self._compiled[known]


def _terms(model: Model, params: Params, extra: Extra, batch: Batch, context: Context) -> dict[str, Float[Array, "B"]]:
    return model.terms(params, extra, batch, context)


def _prepared(model: Model, params: Params, extra: Extra, batch: Batch, context: Context) -> tuple[Batch, Any]:
    return batch, context.keys("likelihood")


def _encoder_info(model: Model, params: Params, extra: Extra, batch: Batch, context: Context) -> dict[str, Any]:
    return model.encode(params, extra, batch["x"], context.keys("posterior")).info
