"""The training split as a frozen first stage sees it: encoded once, kept, read in the place of the examples.

Owns the folder `encoded` of the data directory. A set in it is named by the digest of all it depends on (the split's
arrays, their preprocessing, the first stage's arrays and config), so that no other run can take it for its own;
deleting one costs the time to make it again. Knows no family: what is kept is the model's `codes`.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from latent.data import arrays, preprocess
from latent.data.arrays import Split
from latent.data.prepare import locked
from latent.errors import UserError
from latent.evaluation_data import EvaluationData
from latent.types import Batch, Context, Extra, Model, Params, PrepareFn, State, StreamFn

DIRECTORY = "encoded"
FORMAT = 1
BLOCK = 4096
"""Examples that are encoded before they are written."""

TOLERANCE = 1e-2
"""Largest difference of a term of the codes from the same term of the examples, relative to the largest."""


def require(model: Model, section: Any) -> None:
    """Raises UserError where the training split of this run cannot be encoded once."""
    if model.codes is None:
        raise UserError(
            f"data.encode_once=True: this run of model.name={section.model.name!r} has no frozen first stage that "
            "could encode its data (model.first_stage)."
        )
    if changing := preprocess.drawn(section.data):
        raise UserError(
            f"data.encode_once=True keeps one code of an example, but {', '.join(changing)} shows other pixels of it "
            "at every use: set one or the other."
        )


def or_codes(prepare: PrepareFn) -> PrepareFn:
    """The preprocessing, which leaves a batch without pixels as it is."""

    def prepared(raw: Batch, streams: StreamFn, train: bool) -> Batch:
        return prepare(raw, streams, train) if "x" in raw else raw

    return prepared


def split(data: EvaluationData, state: State, folder: Path, budget: int) -> Split:
    """The training split `data` with codes for `x`, made with the frozen components of `state` where the data directory
    `folder` does not have it; on disk where it takes more than `budget` bytes. Of an abstract state: zeros of the same
    shape, which take no memory.

    Raises UserError where the directory cannot be written, a kept set is damaged, or the codes do not stand for the
    examples: a first stage that draws otherwise than from a Gaussian posterior.
    """
    if isinstance(state.step, jax.ShapeDtypeStruct):
        code = data.shapes(_codes, state)
        x = np.broadcast_to(np.float32(0), (len(data.split.x), *code.shape[1:]))
        return data.split._replace(x=x, caption=None)
    identity = {
        "format": FORMAT,
        "data": data.protocol["data"],
        "data_sha256": data.protocol["data_sha256"],
        "preprocessing": data.protocol["preprocessing"],
        "codes": data.model.codes.identity,
    }
    name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
    place = folder / DIRECTORY / name
    if not place.is_dir():
        with locked(folder / DIRECTORY, name):
            if not place.is_dir():
                _check(data, state)
                print(f"encoding the {len(data.split.x)} training examples of {identity['data']} once: {place}")
                arrays.write(place, _encoded(data, state), identity)
    # The text comes from the set itself: what is kept does not depend on how its words are numbered.
    return _read(identity["data"], place, budget)._replace(text=data.split.text)


@functools.lru_cache(maxsize=1)
def _read(name: str, place: Path, budget: int) -> Split:
    """Kept, so that the runs of a population hold one copy."""
    return arrays.read(name, place, budget)[0]["train"]


def _encoded(data: EvaluationData, state: State) -> Iterator[tuple[str, Split]]:
    for start in range(0, len(data.split.x), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(data.split.x)))
        parts = {name: part[rows] for name, part in data.split.arrays().items() if name not in ("x", "text")}
        yield "train", Split(x=data.map(_codes, state, rows=rows), **parts)


def _check(data: EvaluationData, state: State) -> None:
    """UserError where the model's terms of the first examples are not those of their codes."""
    found = data.map(_both_terms, state, rows=np.arange(min(64, len(data.split.x))))
    for name, (of_x, of_codes) in found.items():
        if not np.allclose(of_x, of_codes, rtol=0, atol=TOLERANCE * float(np.abs(of_x).max())):
            raise UserError(
                f"data.encode_once=True: {name} of the codes is not {name} of the examples they stand for: the first "
                "stage's code is neither fixed nor drawn from a Gaussian posterior."
            )


def _codes(model: Model, params: Params, extra: Extra, batch: Batch, context: Context) -> Any:
    return model.codes.encode(params, extra, batch["x"])


def _both_terms(model: Model, params: Params, extra: Extra, batch: Batch, context: Context) -> Any:
    without = {part: array for part, array in batch.items() if part != "x"}
    coded = {**without, "codes": model.codes.encode(params, extra, batch["x"])}
    of_x, of_codes = (model.terms(params, extra, given, context) for given in (batch, coded))
    return {name: (of_x[name], of_codes[name]) for name in of_x}
