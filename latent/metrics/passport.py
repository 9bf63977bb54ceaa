"""What a metric returns: a number with its uncertainty and its passport (law 8).

The *protocol* must be equal within a column of a table; the *provenance*, added when results are written, is
recorded and may differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from latent.errors import UserError


class Result(NamedTuple):
    """One number. `value` is None where the family or the data cannot give it, and `reason` then says why."""

    name: str
    value: float | None
    standard_error: float | None
    unit: str
    protocol: dict[str, Any]
    reason: str = ""


class Mean(Result):
    """A result that is a mean over examples and still knows their values, in the order of the split. They are not
    recorded: two models' values of the same examples are compared more sharply than their means."""

    examples: Float[np.ndarray, "N"]


class Undefined(Exception):
    """Raised inside a metric that turns out to have no value here; its rows then carry the message as their reason."""


def undefined(name: str, reason: str) -> Result:
    """A metric that is not defined here, and why."""
    return Result(name, None, None, "", {}, reason)


def mean(name: str, values: Float[np.ndarray, "N"], unit: str, protocol: dict[str, Any]) -> Result:
    """Mean over examples, a `Mean`, with its standard error, in float64; not defined where an example has no number."""
    values = np.asarray(values, np.float64)
    if broken := int(np.isnan(values).sum()):
        first = int(np.isnan(values).argmax())
        return undefined(name, f"it is NaN for {broken} of {len(values)} examples, the first is number {first}")
    spread = len(values) > 1 and np.isfinite(values).all()
    error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if spread else None
    result = Mean(name, float(np.mean(values)), error, unit, {**protocol, "N": len(values)})
    result.examples = values
    return result


def valid(values: Any) -> Any:
    """The same as JSON can hold it: no NaN and no infinity, which become the strings "nan", "inf" and "-inf"."""
    if isinstance(values, Mapping):
        return {key: valid(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [valid(value) for value in values]
    values = values.item() if hasattr(values, "item") else values  # scalars of NumPy and JAX
    if values is None or isinstance(values, str | bool | int):
        return values
    number = float(values)
    return number if math.isfinite(number) else str(number)


def require_counts(metric: str, options: Any, **least: int) -> None:
    """Raises UserError unless each named option is an integer of at least the given value."""
    for name, bound in least.items():
        value = options[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < bound:
            raise UserError(f"{metric}.{name}={value!r} must be an integer of at least {bound}.")


def fitted_on(protocol: Mapping[str, Any], count: int) -> dict[str, Any]:
    """What a passport says of a number for which something was fitted on the first `count` examples of a split."""
    return {"fitted_on": protocol["split"], "fitted_sha256": protocol.get("data_sha256", ""), "fitted_N": count}
