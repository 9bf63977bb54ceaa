"""A table as text: Markdown and LaTeX to be read, CSV with every digit. One function a format; FORMATS lists them."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable

from latent.tables.comparison import Cell, Group, Table, show
from latent.tables.statistics import Interval


def markdown(table: Table) -> str:
    """A GitHub table, and the notes below it."""
    header = _header(table)
    lines = [_line(header), "|" + "---|" * len(header)]
    lines += [_line(_row(table, group)) for group in table.groups]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes)])


def latex(table: Table) -> str:
    """A booktabs table; the notes become its caption."""
    header = _header(table)
    columns = "l" * len(table.by) + "r" * (len(header) - len(table.by))
    lines = [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{columns}}}"]
    lines += [r"\toprule", _ampersands(header), r"\midrule"]
    lines += [_ampersands(_row(table, group)) for group in table.groups]
    lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{_escaped(' '.join(table.notes))}}}", r"\end{table}"]
    return "\n".join(lines)


def comma_separated(table: Table) -> str:
    """A line a group and metric, numbers in full, the protocol as JSON."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    statistics = ("mean", "n", "t_low", "t_high", "bootstrap_low", "bootstrap_high")
    tests = ("difference", "pairs", "difference_low", "difference_high", "p_holm", "verdict")
    writer.writerow([*table.by, "metric", "unit", *statistics, *tests, "values", "protocol"])
    for group in table.groups:
        for column, cell in zip(table.columns, group.cells, strict=True):
            if cell is None:
                continue
            summary, compared = cell.summary, cell.comparison
            row = [summary.mean, summary.n, *(summary.student or ("", "")), *(summary.bootstrap or ("", ""))]
            row += [compared.difference, compared.n, *(compared.student or ("", ""))] if compared else [""] * 4
            row += [
                "" if cell.p is None else cell.p,
                cell.verdict,
                json.dumps(cell.values),
                json.dumps(column.protocol),
            ]
            writer.writerow([*map(show, group.key), column.name, column.unit, *row])
    return out.getvalue().rstrip("\n")


FORMATS: dict[str, Callable[[Table], str]] = {"markdown": markdown, "latex": latex, "csv": comma_separated}


def _header(table: Table) -> list[str]:
    words = list(table.by)
    for column in table.columns:
        words += [f"{column.name} [{column.unit}]", "95% t", "95% bootstrap", "n", "difference", "p (Holm)", "verdict"]
    return words if len(table.groups) > 1 else _untested(table, words)


def _untested(table: Table, words: list[str]) -> list[str]:
    """A row without the columns of tests: there is nothing to compare a single group with."""
    keys = len(table.by)
    return [word for place, word in enumerate(words) if place < keys or (place - keys) % 7 < 4]


def _row(table: Table, group: Group) -> list[str]:
    words = list(map(show, group.key))
    for cell in group.cells:
        words += [""] * 7 if cell is None else _words(cell)
    return words if len(table.groups) > 1 else _untested(table, words)


def _words(cell: Cell) -> list[str]:
    summary, compared = cell.summary, cell.comparison
    digits = decimals(summary.student)
    words = [number(summary.mean, digits), interval(summary.student, digits), interval(summary.bootstrap, digits)]
    words.append(str(summary.n))
    if compared is None:
        return [*words, "", "", cell.verdict]
    finer = decimals(compared.student)
    difference = f"{number(compared.difference, finer, '+')} {interval(compared.student, finer)}".strip()
    return [*words, difference, "" if cell.p is None else f"{cell.p:.2g}", cell.verdict]


def decimals(interval: Interval | None) -> int | None:
    """Decimals at which an interval's half width has two significant digits; None without one."""
    half = (interval.high - interval.low) / 2 if interval else 0.0
    return max(0, 1 - math.floor(math.log10(half))) if half > 0 else None


def number(value: float, digits: int | None, sign: str = "") -> str:
    """A number to so many decimals; to five significant digits where its uncertainty is unknown."""
    return f"{value:{sign}.5g}" if digits is None else f"{value:{sign}.{digits}f}"


def interval(given: Interval | None, digits: int | None) -> str:
    """[low, high]; nothing where there is none."""
    return f"[{number(given.low, digits)}, {number(given.high, digits)}]" if given else ""


def _line(words: list[str]) -> str:
    return "| " + " | ".join(word.replace("|", r"\|") for word in words) + " |"


def _ampersands(words: list[str]) -> str:
    return " & ".join(map(_escaped, words)) + r" \\"


def _escaped(text: str) -> str:
    for letter in "&%$#_{}":
        text = text.replace(letter, "\\" + letter)
    return text.replace("<", r"$<$").replace(">", r"$>$")
