"""What a launcher may be told besides the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Options(NamedTuple):
    """`jobs`: members at a time (0: the launcher's choice). `cluster`: parameters of a batch job, by name. `dry_run`:
    write and start nothing; a launcher may print what it would submit. `search`: the members are not known yet."""

    jobs: int = 0
    cluster: Mapping[str, Any] = {}
    dry_run: bool = False
    search: bool = False
