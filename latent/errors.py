"""The two ways a command stops early on purpose. Every other exception is a defect of ours."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user must change: one or two lines that name the key, the value and what is allowed.

    The commands print it and exit 2; nothing has been written when it is raised.
    """


class NonFinite(Exception):
    """Training met a value that is not finite; the message names the replay bundle. The commands exit 3."""


def unknown_name(what: str, value: str, allowed: Iterable[str]) -> UserError:
    """A `UserError` for a wrong name: lists the valid ones and, where one is close, the nearest."""
    allowed = sorted(allowed)
    near = difflib.get_close_matches(str(value), allowed, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UserError(f"{what}={value!r} is not known.{hint} Allowed: {', '.join(allowed)}.")
