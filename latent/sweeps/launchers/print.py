"""Members as shell commands, one a line, for any other launcher: `... --launcher=print | parallel -j 8`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from latent.sweeps.launchers.options import Options
from latent.sweeps.plan import Member, Plan, write


def launch(plan: Plan, members: Sequence[Member], options: Options) -> int:
    """Prints the commands of the members that are not finished."""
    if options.dry_run:
        return 0
    write(plan)
    for member in members:
        print(shlex.join(plan.command(member)))
    return 0
