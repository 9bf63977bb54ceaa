"""What every command shares: flags to arguments, errors to exit codes, memory, the compilation cache."""

from __future__ import annotations

import ast
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path

from absl import flags

from latent.errors import NonFinite, UserError

OVERRIDE = "--config."
ALLOCATOR = "GLIBC_TUNABLES"
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
overrides: dict[str, str] = {}
"""What the command line sets in the config: {dotted key: text}. Filled before `main` is called."""
words: list[str] = []
"""What the command line says without a flag, where the command takes such a word. Filled before `main` is called."""


def run(main: Callable[[], int], required: Sequence[str] = (), word: str = "") -> None:
    """Parses the flags, runs `main` and exits with its code. A command may take one `word` without a flag."""

    @wraps(main)
    def command() -> int:
        _parse(required, word)
        set_up_jax()
        return main()

    exit_with(command)


def exit_with(main: Callable[[], int]) -> None:
    """Runs `main` and exits with its code: 2 the user must change something, 3 values not finite, 130 interrupted.
    A process that was started with `main`'s file starts once more where its memory has to be set up before."""
    if main.__module__ == "__main__" and (changes := allocator(os.environ)):
        os.environ.update(changes)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    try:
        sys.exit(main())
    except UserError as error:
        _fail(str(error), 2)
    except NonFinite as error:
        _fail(str(error), 3)
    except KeyboardInterrupt:
        _fail("interrupted", 130)


def allocator(environment: Mapping[str, str], huge_pages: Path = HUGE_PAGES) -> dict[str, str]:
    """What must be set before a process starts for its memory to come in huge pages, where the system leaves the choice
    to the program; nothing where it is set already.

    XLA:CPU asks for the scratch memory of every step anew, glibc hands more than 32 MB of it back to the system each
    time, and the step then waits for a page fault per 4 kB.
    """
    if not os.access(huge_pages, os.R_OK) or "[madvise]" not in huge_pages.read_text():
        return {}
    given = environment.get(ALLOCATOR, "")
    if "glibc.malloc.hugetlb" in given:
        return {}
    return {ALLOCATOR: ":".join(filter(None, [given, "glibc.malloc.hugetlb=1"]))}


def _parse(required: Sequence[str], word: str) -> None:
    if any(word in ("--help", "-h", "-help") for word in sys.argv[1:]):
        print((sys.modules["__main__"].__doc__ or "").strip())
        print("\n" + flags.FLAGS.main_module_help())
        sys.exit(0)
    given, found = split_overrides(sys.argv)
    overrides.update(found)
    try:
        rest = flags.FLAGS(given)
    except flags.Error as error:
        raise UserError(" ".join(str(error).split())) from error
    if word and len(rest) == 1:
        raise UserError(f"{word} is required.")
    if word:
        words.append(rest.pop(1))
    if rest[1:]:
        raise UserError(f"{rest[1]!r} is not a flag. Flags start with -- and take their value after =.")
    for name in required:
        if not flags.FLAGS[name].value:
            raise UserError(f"--{name} is required.")


def split_overrides(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The words without --config.KEY=VALUE, and these as {dotted key: text}."""
    rest, found = [], {}
    for word in words:
        if not word.startswith(OVERRIDE):
            rest.append(word)
            continue
        key, equals, value = word.removeprefix(OVERRIDE).partition("=")
        if not equals:
            raise UserError(f"{word} needs a value: {word}=VALUE.")
        found[key] = value
    return rest, found


def set_up_jax() -> None:
    """Quiet logs, and compiled programs that are kept between processes."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("absl").setLevel(logging.ERROR)
    import jax

    # Compiling is the larger part of a short run; programs are kept between processes.
    default = Path.home() / ".cache" / "latent" / "compilation"
    jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(default)))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def output_file(flag: str, value: str, endings: Sequence[str]) -> Path:
    """The path a flag names, checked before any work: one of the endings, in a folder that exists."""
    path = Path(value)
    if path.suffix not in endings or not path.absolute().parent.is_dir():
        raise UserError(f"--{flag}={path} must be a {' or '.join(endings)} file in a folder that exists.")
    return path


def parse_options(text: str) -> dict[str, dict[str, object]]:
    """ "iwae.num_samples=50,kid.extractor=pixels" -> {"iwae": {"num_samples": 50}, "kid": {"extractor": "pixels"}}."""
    options: dict[str, dict[str, object]] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        name, dot, option = key.partition(".")
        if not (equals and dot):
            raise UserError(f"--options={part!r} is not of the form metric.option=value.")
        options.setdefault(name, {})[option] = _number_or_word(part, value)
    return options


def _number_or_word(part: str, text: str) -> object:
    if text.isidentifier() and text not in ("True", "False", "None"):
        return text  # a name, such as an extractor's
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise UserError(f"--options={part!r}: the value is neither a number nor a name.") from error
