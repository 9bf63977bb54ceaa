"""What a metric returns: a number with its uncertainty and its passport (law 8).

The *protocol* must be equal within a column of a table; the *provenance*, added when results are written, is
recorded and may differ.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float


class Result(NamedTuple):
    """One number. `value` is None where the family or the data cannot give it, and `reason` then says why."""

    name: str
    value: float | None
    standard_error: float | None
    unit: str
    protocol: dict[str, Any]
    reason: str = ""


def undefined(name: str, reason: str) -> Result:
    """A metric that is not defined here, and why."""
    return Result(name, None, None, "", {}, reason)


def mean(name: str, values: Float[np.ndarray, "N"], unit: str, protocol: dict[str, Any]) -> Result:
    """Mean over examples with its standard error, in float64."""
    values = np.asarray(values, np.float64)
    error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    return Result(name, float(np.mean(values)), error, unit, {**protocol, "N": len(values)})
