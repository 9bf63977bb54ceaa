"""What the results of a paper-style experiment say: its table, its comparisons, and the part of its page that they
make. Numbers in, Markdown out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from latent.errors import UserError
from latent.reproduction import Paper, difference
from latent.tables import comparison, statistics

Lines = Sequence[Mapping[str, Any]]
BEGIN, END = "<!-- results -->", "<!-- end of results -->"
"""Between them a page holds what was measured: written by `experiments.reproduce --record`."""
UNRUN = "**Not run yet**: the table holds no number of ours."
PICTURE = "plot.png"


def table(paper: Paper, lines: Lines) -> str:
    """Markdown: means over seeds with 95% t intervals, published numbers where there are any, then every row's
    difference to the baseline and rank correlations. Raises UserError where a column was measured by more than one
    protocol."""
    require_one_protocol(paper, lines)
    parts = (_means(paper, lines), _differences(paper, lines), _by_example(paper, lines), _correlations(paper, lines))
    return "\n\n".join(text for text in ("\n".join(part) for part in parts) if text)


def section(paper: Paper, lines: Lines) -> str:
    """The part of a page between the marks: what was run, the table, the picture."""
    epochs = sorted({line["epochs"] for line in lines if "epochs" in line})
    length = f" Epochs: {epochs[0]:g}" + (f" to {epochs[-1]:g}." if len(epochs) > 1 else ".") if epochs else ""
    told = f"Run: {paper.budget}.{length}" if lines else f"{UNRUN} `--budget=short` is: {paper.budget}."
    picture = [f"![{paper.title}]({PICTURE})"] if lines else []
    return "\n\n".join([BEGIN, told, table(paper, lines), *picture, END])


def page(text: str, paper: Paper, lines: Lines) -> str:
    """A page with its results replaced. Raises UserError where it has no place for them."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise UserError(f"{paper.title}: its README.md has no {BEGIN} and {END}.")
    return before + section(paper, lines) + after


def require_one_protocol(paper: Paper, lines: Lines) -> None:
    """Numbers of one column must have been measured alike (law 8), but for how the samples were drawn, which is what
    rows may differ in."""
    for column in paper.columns:
        found = [dict(line["protocol"]) for line in lines if line["name"] == column]
        for protocol in found:
            for key in ("sampling", "weights"):
                protocol.pop(key, None)
        if len({json.dumps(protocol, sort_keys=True) for protocol in found}) > 1:
            raise UserError(f"{paper.title}: {column} was measured by several protocols; measure all rows alike.")


def values(lines: Lines, row: str, column: str) -> dict[int, float]:
    """{seed: value} of a row in a column."""
    return {line["seed"]: line["value"] for line in lines if (line["row"], line["name"]) == (row, column)}


def _means(paper: Paper, lines: Lines) -> Iterator[str]:
    published = any(row.published for row in paper.rows)
    differs = any(row.differs for row in paper.rows)
    header = ["", "n", *paper.columns, *["published"] * published, *["why they differ"] * differs]
    yield f"| {' | '.join(header)} |"
    yield "|---" * len(header) + "|"
    for row in paper.rows:
        found = {column: values(lines, row.name, column) for column in paper.columns}
        cells = [_cell(paper, seeds) for seeds in found.values()]
        if published:
            cells.append("; ".join(f"{column} {text}" for column, text in row.published.items()) or "-")
        if differs:
            cells.append(row.differs or "-")
        yield f"| {row.name} | {max(map(len, found.values()))} | {' | '.join(cells)} |"


def _cell(paper: Paper, found: Mapping[int, float]) -> str:
    if not found:
        return "-"
    summary = statistics.summarise(list(found.values()))
    if summary.student is None:
        return f"{summary.mean:.4g}"
    half = f"{summary.mean:.4g} +- {summary.student.high - summary.mean:.2g}"
    return f"{half} ({min(found.values()):.4g} .. {max(found.values()):.4g})" if paper.spread else half


def _others(paper: Paper) -> list[str]:
    return [row.name for row in paper.rows if row.name != paper.baseline] if paper.baseline and paper.tested else []


def _differences(paper: Paper, lines: Lines) -> Iterator[str]:
    others = _others(paper)
    if not others or not lines:
        return
    told = {column: _verdicts(paper.baseline, others, lines, column) for column in paper.tested}
    yield f"| minus {paper.baseline}, paired by seed | {' | '.join(paper.tested)} |"
    yield "|---" * (len(paper.tested) + 1) + "|"
    for row in others:
        yield f"| {row} | {' | '.join(told[column][row] for column in paper.tested)} |"


def _verdicts(baseline: str, rows: Sequence[str], lines: Lines, column: str) -> dict[str, str]:
    """What each row's difference to the baseline amounts to, Holm-corrected for the number of rows."""
    plain = values(lines, baseline, column)
    compared = {row: statistics.compare(values(lines, row, column), plain) for row in rows}
    corrected = statistics.holm([found.p if found else None for found in compared.values()])
    told = {}
    for (row, found), p in zip(compared.items(), corrected, strict=True):
        verdict = comparison.judge(found, p)
        told[row] = verdict
        if found is not None:
            between = "" if found.student is None else f" [{found.student.low:+.3g}, {found.student.high:+.3g}]"
            told[row] = f"{found.difference:+.3g}{between} {verdict}"
    return told


def _by_example(paper: Paper, lines: Lines) -> Iterator[str]:
    """Differences of the first seed's runs on the same examples, with 95% intervals: of these two runs, not of the
    methods, which is why no verdict stands here."""
    names = {column: difference(column, paper.baseline) for column in paper.tested}
    known = {(line["row"], line["name"]): line for line in reversed(lines) if line["name"] in names.values()}
    columns = [column for column, name in names.items() if any(key[1] == name for key in known)]
    if not columns:
        return
    first = next(iter(known.values()))
    what = f"minus {paper.baseline}, paired by example ({first['N']:,}), seed {first['seed']}"
    yield f"| {what} | {' | '.join(columns)} |"
    yield "|---" * (len(columns) + 1) + "|"
    for row in _others(paper):
        cells = []
        for column in columns:
            line = known.get((row, names[column]))
            cells.append(f"{line['value']:+.3g} +- {1.96 * line['standard_error']:.2g}" if line else "-")
        yield f"| {row} | {' | '.join(cells)} |"


def _correlations(paper: Paper, lines: Lines) -> Iterator[str]:
    """Spearman's rank correlations between columns, over all runs."""
    from scipy import stats

    found: dict[str, dict[tuple[str, int], float]] = {column: {} for column in paper.correlated}
    for line in lines:
        if line["name"] in found:
            found[line["name"]][line["row"], line["seed"]] = line["value"]
    runs = sorted(set.intersection(*map(set, found.values()))) if found else []
    if len(runs) < 3:
        return
    yield f"| rank correlation over {len(runs)} runs | {' | '.join(paper.correlated)} |"
    yield "|---" * (len(paper.correlated) + 1) + "|"
    ranked = {column: [of_runs[run] for run in runs] for column, of_runs in found.items()}
    for one, mine in ranked.items():
        cells = [f"{stats.spearmanr(mine, theirs).statistic:.2f}" for theirs in ranked.values()]
        yield f"| {one} | {' | '.join(cells)} |"
