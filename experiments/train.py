"""Trains the run that a config describes, or continues it.

python -m experiments.train --config=configs/vae.py:mnist --workdir=runs/vae --config.model.latent_dim=8
"""

from __future__ import annotations

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from experiments import command_line
from latent.errors import UserError

CONFIG = config_flags.DEFINE_config_file("config", None, "configs/FILE.py:VARIANT", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Where the run is written; the same command continues it.")
DRY_RUN = flags.DEFINE_bool("dry-run", False, "Print the resolved config, parameters, FLOPs and memory, then stop.")
PROFILE = flags.DEFINE_bool("profile", False, "Write a JAX trace to WORKDIR/profile.")
REPLAY = flags.DEFINE_string("replay", None, "Repeat the non-finite step of this bundle and name its first bad part.")


def main() -> int:
    """Returns the exit code."""
    if REPLAY.value is not None:
        return _replay(Path(REPLAY.value))
    if CONFIG.value is None:
        raise UserError("--config is required, e.g. --config=configs/vae.py:digits")
    settings = CONFIG.value.to_dict()
    overridden = config_flags.get_override_values(flags.FLAGS["config"])
    if DRY_RUN.value:
        from latent import dry_run

        print(dry_run.describe(settings, overridden))
        return 0
    if WORKDIR.value is None:
        raise UserError("--workdir is required, e.g. --workdir=runs/vae")
    from latent import train

    return train.train(settings, Path(WORKDIR.value), overridden, PROFILE.value)


def _replay(bundle: Path) -> int:
    from latent import failure

    bad, report = failure.replay(bundle)
    for name, good in report.items():
        print(f"{'finite' if good else 'NOT FINITE':<12}{name}")
    print(f"first bad part: {bad}")
    return 0 if bad == "nothing" else 3


if __name__ == "__main__":
    command_line.run(main)
