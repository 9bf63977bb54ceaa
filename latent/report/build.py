"""Makes a report: every section of a run, one page, and figures beside it. The only file here that writes."""

from __future__ import annotations

import importlib
import importlib.metadata
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from latent import provenance
from latent.errors import unknown_name
from latent.report import figures, page
from latent.report.evidence import Evidence
from latent.report.sections import ORDER, overview
from latent.run import Run

INDEX, FIGURES = "index.html", "figures"


def build(
    run: Run,
    out: Path,
    split: str = "test",
    limit: int = 2000,
    sections: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
    other: Run | None = None,
) -> Path:
    """Writes out/index.html and out/figures/ and returns the page's path; `say` is told what is done.

    `sections` are names of ORDER, all by default; `other` is a run whose layers are compared with this one's. Raises
    UserError for unknown names; the page and the figures appear when everything has been computed.
    """
    for name in sections:
        if name not in ORDER:
            raise unknown_name("--sections", name, ORDER)
    chosen = [name for name in ORDER if not sections or name in sections or name == "overview"]
    evidence = Evidence(run, split, limit, chosen, other)
    made = {}
    # The overview warns of what the other sections compute, and comes last so that each is told with its own time.
    for name in [*(name for name in chosen if name != "overview"), "overview"]:
        started = time.monotonic()
        module = importlib.import_module(f"latent.report.sections.{name}")
        made[name] = module.section(evidence)
        absent = isinstance(made[name], page.Absent)
        say(f"{name:<16} {time.monotonic() - started:5.1f} s" + (f"  not shown: {made[name].reason}" if absent else ""))
    commit = provenance.commit()[:12]
    when = f"{time.strftime('%Y-%m-%d %H:%M')}, latent {importlib.metadata.version('latent')}" + (
        f" at {commit}" if commit else ""
    )
    text = page.render(overview.headline(evidence), {name: made[name] for name in chosen}, when)
    started = time.monotonic()
    _write(out, text, evidence)
    say(f"{'figures':<16} {time.monotonic() - started:5.1f} s")
    return out / INDEX


def _write(out: Path, text: str, evidence: Evidence) -> None:
    """Both, through temporary names: a report that is being read is never half a report."""
    out.mkdir(parents=True, exist_ok=True)
    temporary = out / f"{FIGURES}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    figures.draw(evidence, temporary)
    shutil.rmtree(out / FIGURES, ignore_errors=True)
    temporary.rename(out / FIGURES)
    page_file = out / f"{INDEX}.tmp"
    page_file.write_text(text, encoding="utf-8")
    page_file.rename(out / INDEX)
