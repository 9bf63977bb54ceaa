"""Makes the latent report of a run: WORKDIR/report/index.html, one page that needs no network, and figures beside it.

python -m experiments.analyze --workdir=runs/vae
python -m experiments.analyze --workdir=runs/vae --against=runs/other --sections=similarity
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from experiments import command_line
from latent.errors import UserError

WORKDIR = flags.DEFINE_string("workdir", None, "A run.")
STEP = flags.DEFINE_string("step", "latest", "latest, best or a number.")
SPLIT = flags.DEFINE_string("split", "test", "train, validation or test.")
LIMIT = flags.DEFINE_integer("limit", 2000, "How many examples of the split are looked at, a fixed random subset.")
SECTIONS = flags.DEFINE_list("sections", [], "Names of latent/report/sections; default: all.")
AGAINST = flags.DEFINE_string("against", None, "Another run on the same data: how alike are its layers and codes?")
OUT = flags.DEFINE_string("out", None, "A folder for the report; default: WORKDIR/report.")


def main() -> int:
    """Returns the exit code."""
    import latent
    from latent.report import build

    run = latent.load(WORKDIR.value, STEP.value)
    out = Path(OUT.value) if OUT.value else run.workdir / "report"
    if out.exists() and not out.is_dir():
        raise UserError(f"--out={out} must be a folder.")
    other = latent.load(AGAINST.value) if AGAINST.value else None
    page = build.build(run, out, SPLIT.value, LIMIT.value, SECTIONS.value, say=print, other=other)
    print(f"report of {run.workdir} at step {run.step}: {page} ({page.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    command_line.run(main, required=["workdir"])
