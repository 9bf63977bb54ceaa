"""Tables from runs, with intervals over seeds and paired tests; or a config's stated numbers against a run of it.

python -m scripts.table runs/sweep --metric iwae --by model.latent_dim --baseline 8 --plot iwae.png
python -m scripts.table runs/sweep --metric elbo,active_units --by model.latent_dim --evaluate --format latex
python -m scripts.table runs/betas --metric elbo --by hparams.autoencoder.beta --plot rd.png --kind rate_distortion
python -m scripts.table --check configs/vae.py:digits

Runs are grouped by the keys of --by and may differ within a group in their seed alone; protocols are never mixed.
Exit codes: 0; 1 --check measured a value outside its stated spread; 2 you must change something (with --check also: the
docstring states nothing); 3, 143 and 130 as of experiments.train.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import command_line
from latent.errors import UserError, unknown_name
from scripts.arguments import Parser


def main() -> int:
    """Returns the exit code."""
    arguments = _parser().parse_args()
    if (arguments.check is None) == (arguments.folder is None):
        raise UserError("give a folder of runs, or --check=CONFIG.")
    if arguments.check is not None:
        return _check(arguments.check, arguments.workdir)
    if not arguments.metric or not arguments.by:
        raise UserError("--metric and --by are required: what to show, and by which config keys.")
    return _table(arguments)


def _check(path: str, workdir: Path | None) -> int:
    command_line.set_up_jax()
    from latent.tables import expectations

    workdir = workdir or expectations.default_workdir(path)
    code, verdicts = expectations.check(path, workdir, command_line.parse_options)
    if code:
        return code
    print(expectations.report(verdicts))
    return 0 if all(verdict.holds for verdict in verdicts) else 1


def _table(arguments: argparse.Namespace) -> int:
    from latent.tables import comparison, formats, measurements, plots

    metrics, by, split = arguments.metric.split(","), arguments.by.split(","), arguments.split
    for flag, value, known in (("format", arguments.format, formats.FORMATS), ("kind", arguments.kind, plots.PLOTS)):
        if value not in known:
            raise unknown_name(f"--{flag}", value, known)
    picture = command_line.output_file("plot", arguments.plot, (".png", ".pdf", ".svg")) if arguments.plot else None
    chosen = _pairs(arguments.protocol)
    runs = measurements.find(arguments.folder)
    if arguments.evaluate:
        _evaluate(runs, metrics, split)
        runs = measurements.find(arguments.folder)
    names = [measurements.resolve(runs, metric, split) for metric in metrics]
    columns = [measurements.column(runs, name, split, chosen) for name in names]
    table = comparison.make(runs, columns, by, arguments.baseline)
    print(formats.FORMATS[arguments.format](table))
    if picture:
        plots.PLOTS[arguments.kind](table, measurements.under(runs, chosen), split, picture)
    return 0


def _evaluate(runs: Any, metrics: list[str], split: str) -> None:
    """Measures what runs lack: any metric that needs no options, or whose options are in their configs."""
    command_line.set_up_jax()
    from latent import config, evaluate
    from latent.run import load

    for run in runs:
        have = {row["name"] for row in run.rows if row["protocol"]["split"] == split}
        settings = config.unflatten(run.config)["eval"]
        produced = {}
        for name in dict.fromkeys([*settings["metrics"], *settings["options"], *config.names(evaluate.PACKAGE)]):
            with contextlib.suppress(UserError):  # no metric, or one whose options this run lacks
                produced[name] = evaluate.result_names([name], settings["options"])
        wanted = dict.fromkeys(found for word in metrics if (found := _giving(word, produced)))
        lacking = [name for name in wanted if not set(produced[name]) <= have]
        if lacking:
            print(f"{run.workdir}: evaluating {', '.join(lacking)} on {split}", file=sys.stderr)
            load(run.workdir).evaluate(lacking, split)


def _giving(word: str, produced: Mapping[str, Sequence[str]]) -> str:
    """The metric that a word of --metric asks for, which may be its own name, a result's, or how a result begins. Some
    results are given by several: the first does. Empty where none does."""
    exact = (name for name, results in produced.items() if word in (name, *results))
    longer = (name for name, results in produced.items() if any(result.startswith(word + "_") for result in results))
    return next(exact, "") or next(longer, "")


def _pairs(words: list[str]) -> dict[str, str]:
    pairs = dict(word.partition("=")[::2] for word in words)
    if not all(pairs.values()):
        raise UserError(f"--protocol {' '.join(words)!r} is not of the form KEY=VALUE ...")
    return pairs


def _parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="a folder of runs: a sweep")
    parser.add_argument("--metric", default="", help="results, as experiments.evaluate names them, or how they begin")
    parser.add_argument("--by", default="", metavar="KEYS", help="config keys whose values are the rows")
    parser.add_argument("--baseline", help="the row that others are tested against, as its keys are shown; the first")
    parser.add_argument("--split", default="test", help="train, validation or test")
    parser.add_argument("--protocol", nargs="+", default=[], metavar="KEY=VALUE", help="chooses among several")
    parser.add_argument(
        "--evaluate", action="store_true", help="measure first what runs lack, if they have its options"
    )
    parser.add_argument("--format", default="markdown", help="markdown, latex or csv")
    parser.add_argument("--plot", default="", help="a .png, .pdf or .svg file")
    parser.add_argument("--kind", default="curve", help="of plot: curve, parallel or rate_distortion")
    parser.add_argument("--check", metavar="CONFIG", help="configs/FILE.py:VARIANT, trained, evaluated and compared")
    parser.add_argument("--workdir", type=Path, help="of --check; default runs/check/FILE_VARIANT")
    return parser


if __name__ == "__main__":
    command_line.exit_with(main)
