"""A parser for scripts with long command lines, whose mistakes are one line."""

from __future__ import annotations

import argparse
from typing import Any

from latent.errors import UserError, unknown_name


class Parser(argparse.ArgumentParser):
    """argparse with the errors of this project: UserError, and the nearest flag for one that does not exist."""

    def __init__(self, description: str | None):
        super().__init__(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )

    def error(self, message: str) -> Any:
        """Raises UserError in place of printing the usage and exiting."""
        what, _, words = message.partition("unrecognized arguments: ")
        if words and not what:
            word = words.split()[0]
            if word.startswith("--"):
                raise unknown_name("the flag", word.partition("=")[0], self._option_string_actions)
            raise UserError(f"{word!r} is not a flag. Flags start with --.")
        raise UserError(message[0].upper() + message[1:] + ".")
