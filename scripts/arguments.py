"""What scripts with long command lines share: a parser whose mistakes are one line, and errors to exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from latent.errors import NonFinite, UserError, unknown_name


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


def exit_with(main: Callable[[], int]) -> None:
    """Runs `main` and exits with its code: 2 the user must change something, 3 values not finite, 130 interrupted."""
    try:
        sys.exit(main())
    except UserError as error:
        _fail(str(error), 2)
    except NonFinite as error:
        _fail(str(error), 3)
    except KeyboardInterrupt:
        _fail("interrupted", 130)


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
