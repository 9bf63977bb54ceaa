"""Draws samples of a run as a picture grid.

python -m experiments.sample --workdir=runs/vae --num=64 --out=samples.png
python -m experiments.sample --workdir=runs/gan --num=64 --out=threes.png --label=3 --truncation=1
python -m experiments.sample --workdir=runs/vae --num=64 --out=fitted.png --density=mixture:10
"""

from __future__ import annotations

import math

import numpy as np
from absl import flags

from experiments import command_line, sampling
from latent.errors import UserError

WORKDIR = flags.DEFINE_string("workdir", None, "A run.")
STEP = flags.DEFINE_string("step", "latest", "latest, best or a number.")
NUM = flags.DEFINE_integer("num", 64, "How many samples.")
OUT = flags.DEFINE_string("out", None, "A .png (images) or .npz file (key x).")
SEED = flags.DEFINE_integer("seed", 0, "Sample i depends on the seed and on i only.")
LABEL = flags.DEFINE_integer("label", None, "The class of every sample, where the model was trained with labels.")


def main() -> int:
    """Returns the exit code."""
    if NUM.value < 1:
        raise UserError(f"--num={NUM.value} must be at least 1.")
    out = command_line.output_file("out", OUT.value, (".png", ".npz"))
    import latent
    from latent import pictures

    run = latent.load(WORKDIR.value, STEP.value)
    if out.suffix == ".png" and not pictures.is_image(run.spec):
        raise UserError(f"--out={out}: examples of shape {run.spec.shape} are no pictures; use .npz.")
    x = np.asarray(sampling.applied(run).sample(NUM.value, SEED.value, LABEL.value))
    if out.suffix == ".npz":
        np.savez_compressed(out, x=x)
    else:
        from PIL import Image

        columns = math.ceil(math.sqrt(NUM.value))
        Image.fromarray(pictures.grid(x, columns, pictures.magnification(run.spec))).save(out)
    print(f"{NUM.value} samples of {run.workdir} at step {run.step}: {out}")
    return 0


if __name__ == "__main__":
    command_line.run(main, required=["workdir", "out"])
