"""The sections of a report, one file each: `section(evidence) -> Section | Absent`. Their order is the page's."""

from __future__ import annotations

ORDER = (
    "overview",
    "curves",
    "reconstructions",
    "samples",
    "map",
    "traversals",
    "interpolation",
    "trajectory",
    "structure",
    "statistics",
    "features",
    "similarity",
    "neighbours",
    "metrics",
)
"""Names of the modules of this package; `overview` is always there and comes first."""
