"""What --grid, --zip, --random and --seeds ask for, as points: {dotted key: value}. Knows no config and no file."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from latent.errors import UserError, unknown_name

DIGITS = 4
"""Significant digits of a drawn number: enough for a search, few enough for a directory's name."""


class Space(NamedTuple):
    """Where a random value comes from: `kind` is uniform, log, int or logint between `low` and `high` (both included
    where they are integers), or choice among `choices`."""

    kind: str
    low: float = 0.0
    high: float = 0.0
    choices: tuple[str, ...] = ()

    def at(self, share: float) -> Any:
        """The value that a share in [0, 1) of the space stands for."""
        if self.kind == "choice":
            return self.choices[int(share * len(self.choices))]
        low, high = (self.low, self.high + 1) if self.kind in ("int", "logint") else (self.low, self.high)
        value = low * (high / low) ** share if self.kind in ("log", "logint") else low + share * (high - low)
        return min(math.floor(value), int(self.high)) if self.kind in ("int", "logint") else self.rounded(value)

    def rounded(self, value: float) -> float:
        """A real value to `DIGITS` significant digits, inside the space."""
        return float(min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high))


KINDS = ("uniform", "log", "int", "logint")


class Axes(NamedTuple):
    """What a sweep varies. `grid` is multiplied out, each of `zips` moves together, `random` is drawn `draws` times
    (together, from `draw_seed`), and every point is run with `seeds` seeds; 0: with the config's own."""

    grid: dict[str, tuple[str, ...]]
    zips: tuple[dict[str, tuple[str, ...]], ...]
    random: dict[str, Space]
    draws: int = 0
    draw_seed: int = 0
    seeds: int = 0

    def varied(self) -> list[str]:
        """Every key that is varied, in the order it was asked for."""
        return [*self.grid, *itertools.chain.from_iterable(self.zips), *self.random, *(["seed"] if self.seeds else [])]


def parse(
    grid: Iterable[str] = (),
    zips: Iterable[Sequence[str]] = (),
    random: Iterable[str] = (),
    draws: int = 0,
    draw_seed: int = 0,
    seeds: int = 0,
) -> Axes:
    """Axes from the words of a command line: "model.latent_dim=2,8" and, for `random`, "KEY=log:0.1..10".

    Raises UserError for a word of another form, a key on two axes, and a zip of unequal lengths.
    """
    found = Axes(
        dict(_values("--grid", word) for word in grid),
        tuple(dict(_values("--zip", word) for word in group) for group in zips),
        dict(_space(word) for word in random),
        draws,
        draw_seed,
        seeds,
    )
    for group in found.zips:
        if len({len(values) for values in group.values()}) > 1:
            lengths = ", ".join(f"{key} has {len(values)}" for key, values in group.items())
            raise UserError(f"--zip needs as many values for each key: {lengths}.")
    words = [word.partition("=")[0] for word in (*grid, *itertools.chain(*zips), *random)]
    words += ["seed"] if seeds else []
    twice = next((key for key in words if words.count(key) > 1), None)
    if twice:
        raise UserError(f"{twice} is on two axes; a key can be varied by one of --grid, --zip, --random, --seeds.")
    for flag, number in (("--draws", draws), ("--seeds", seeds), ("--draw-seed", draw_seed)):
        if number < 0:
            raise UserError(f"{flag}={number} must not be negative.")
    if bool(draws) != bool(found.random):
        raise UserError("--random and --draws=N go together: what to draw, and how often.")
    return found


def points(axes: Axes, first_seed: int = 0) -> list[dict[str, Any]]:
    """Every combination, as {key: value}, seeds innermost. Values of the command line are still text.

    Draw i depends on `draw_seed`, the key and i alone: more draws, or another axis, leave those before as they were.
    """
    choices: list[list[dict[str, Any]]] = [[{key: value} for value in values] for key, values in axes.grid.items()]
    for group in axes.zips:
        choices.append([dict(zip(group, row, strict=True)) for row in zip(*group.values(), strict=True)])
    if axes.random:
        choices.append([draw(axes.random, axes.draw_seed, number) for number in range(axes.draws)])
    if axes.seeds:
        choices.append([{"seed": first_seed + number} for number in range(axes.seeds)])
    return [{key: value for part in parts for key, value in part.items()} for parts in itertools.product(*choices)]


def draw(spaces: Mapping[str, Space], seed: int, number: int) -> dict[str, Any]:
    """Draw `number` from every space."""
    generators = {key: np.random.default_rng([seed, zlib.crc32(key.encode()), number]) for key in spaces}
    return {key: space.at(generators[key].random()) for key, space in spaces.items()}


def split(text: str) -> tuple[str, ...]:
    """Values between commas, except those inside brackets: "8,(16, 16)" has two."""
    values, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            values.append("")
        else:
            values[-1] += letter
    return tuple(value.strip() for value in values)


def _values(flag: str, word: str) -> tuple[str, tuple[str, ...]]:
    key, equals, text = word.partition("=")
    if not (key and equals and text):
        raise UserError(f"{flag} {word!r} is not of the form KEY=VALUE,VALUE,...")
    return key, split(text)


def _space(word: str) -> tuple[str, Space]:
    key, values = _values("--random", word)
    kind, colon, limits = word.partition("=")[2].partition(":")
    if not colon:
        return key, Space("choice", choices=values)
    if kind not in KINDS:
        raise unknown_name(f"--random {key}: the kind", kind, (*KINDS, "VALUE,VALUE,... without a kind"))
    try:
        low, high = (float(limit) for limit in limits.split(".."))
    except ValueError as error:
        raise UserError(f"--random {word!r} is not of the form KEY={kind}:LOW..HIGH.") from error
    whole = kind in ("uniform", "log") or (low.is_integer() and high.is_integer())
    if not (low < high and whole and (low > 0 or "log" not in kind)):
        allowed = "LOW < HIGH" + (", LOW > 0" if "log" in kind else "") + (", both whole" if "int" in kind else "")
        raise UserError(f"--random {word!r} needs {allowed}.")
    return key, Space(kind, low, high)
