"""Draws samples of a run, or edits given examples, as a picture grid.

python -m experiments.sample --workdir=runs/vae --num=64 --out=samples.png
python -m experiments.sample --workdir=runs/gan --num=64 --out=threes.png --label=3 --truncation=1
python -m experiments.sample --workdir=runs/emoji --num=64 --out=hearts.png --prompt="red heart" --guidance=3
python -m experiments.sample --workdir=runs/vae --num=64 --out=fitted.png --density=mixture:10
python -m experiments.sample --workdir=runs/ddpm --num=64 --out=samples.png --nearest=nearest.png
python -m experiments.sample --workdir=runs/ddpm --mode=invert --input=test:3,8 --out=inverted.png
python -m experiments.sample --workdir=runs/ddpm --mode=interpolate --input=test:3,8 --num=8 --out=between.png
python -m experiments.sample --workdir=runs/ddpm --mode=img2img --input=photo.png --strength=0.6 --out=edited.png
python -m experiments.sample --workdir=runs/pixels --mode=inpaint --input=test:3 --mask=mask.png --out=filled.png
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from experiments import command_line, inputs, sampling
from latent.errors import UserError

WORKDIR = flags.DEFINE_string("workdir", None, "A run.")
STEP = flags.DEFINE_string("step", "latest", "latest, best or a number.")
NUM = flags.DEFINE_integer(
    "num", None, "Samples (64); pictures on the way (8, interpolate); variants of each input (4)."
)
OUT = flags.DEFINE_string("out", None, "A .png (images) or .npz file (key x, and what else an edit gives).")
SEED = flags.DEFINE_integer("seed", 0, "Sample i depends on the seed and on i only.")
LABEL = flags.DEFINE_integer("label", None, "The class of every sample, where the model was trained with labels.")
PROMPT = flags.DEFINE_string("prompt", None, "What every sample shows, where the model was trained with text.")
NEAREST = flags.DEFINE_string(
    "nearest", None, "Also draw the first samples above the training examples they are nearest to, into this .png."
)
MODE = flags.DEFINE_string(
    "mode", "generate", "generate, or of a diffusion model: invert, img2img, inpaint, interpolate."
)
INPUT = flags.DEFINE_string("input", None, "What is edited: SPLIT:INDEX,INDEX, a .png or a .npz file (key x).")
MASK = flags.DEFINE_string("mask", None, "Of inpaint: a .png (white stays, black is drawn anew) or .npz (key mask).")
STRENGTH = flags.DEFINE_float("strength", None, "Of img2img: share of the steps; 0 keeps the input, 1 forgets it.")
RESAMPLINGS = flags.DEFINE_integer("resamplings", None, "Of inpaint: how often each step is taken (RePaint).")

OF_EDITS = {"img2img": (STRENGTH,), "inpaint": (MASK, RESAMPLINGS)}
NUMBERS = {"generate": 64, "interpolate": 8, "invert": 1}
VARIANTS = 4
COMPARED, NEAR, OTHERS = 12, 3, 50
"""Samples that --nearest draws, training examples below each, and the others by which a copy is told."""


def check_flags() -> None:
    """Raises UserError for flags that the mode does not read, and for those that it lacks."""
    if NUM.value is not None and NUM.value < 1:
        raise UserError(f"--num={NUM.value} must be at least 1.")
    of_other_modes = [flag for mode, found in OF_EDITS.items() if mode != MODE.value for flag in found]
    of_other_modes += (INPUT,) if MODE.value == "generate" else (sampling.DENSITY, NEAREST)
    for flag in of_other_modes:
        if flag.value is not None:
            raise UserError(f"--{flag.name}={flag.value} means nothing with --mode={MODE.value}.")
    if MODE.value == "inpaint" and MASK.value is None:
        raise UserError("--mode=inpaint needs --mask: a .png (white stays, black is drawn anew) or .npz file.")


def edited(run: Any, num: int) -> tuple[dict[str, np.ndarray], int]:
    """What an edit gives, with its inputs, and how many pictures a row of its sheet holds."""
    import jax

    run.check_mode(MODE.value)
    if INPUT.value is None:
        raise UserError(f"--mode={MODE.value} needs --input: SPLIT:INDEX,INDEX, a .png or a .npz file.")
    x, condition = inputs.examples(run, "input", INPUT.value)
    count, options = len(x), sampling.options()
    if LABEL.value is not None or PROMPT.value is not None:
        condition = LABEL.value  # what is asked for takes the place of all that is known of the inputs
    if MODE.value == "interpolate":
        options["frames"] = num
    elif num > 1:
        # Variant v of input i is sample v * N + i.
        x, condition = jax.tree.map(lambda a: np.concatenate([a] * num) if np.ndim(a) else a, (x, condition))
    if STRENGTH.value is not None:
        options["strength"] = STRENGTH.value
    if RESAMPLINGS.value is not None:
        options["resamplings"] = RESAMPLINGS.value
    if MODE.value == "inpaint":
        options["mask"] = np.repeat(inputs.mask(run, "mask", MASK.value), len(x), axis=0)
    found = run.edit(MODE.value, x, SEED.value, condition, PROMPT.value, **options)
    found = {name: np.asarray(value) for name, value in found.items()} | {"input": x[:count]}
    return found, num if MODE.value == "interpolate" else count


def draw_nearest(run: Any, x: np.ndarray, path: Path) -> None:
    """Draws the first samples above their nearest training examples; prints how many of all samples are copies."""
    from latent import pictures
    from latent.analysis import neighbours

    train = run.examples("train")["x"]
    found = neighbours.nearest(x, train, min(1 + OTHERS, len(train)))
    shown, near = found.distance[:COMPARED, :NEAR], train[found.index[:COMPARED, :NEAR]]
    title = f"Samples above the training images nearest to them, of {len(train):,}; below: Euclidean distance"
    pictures.beside_nearest(x[:COMPARED], near, shown, path, title)
    print(f"{neighbours.copies(found).sum()} of {len(x)} samples are copies of a training image: {path}")


def main() -> int:
    """Returns the exit code."""
    check_flags()
    out = command_line.output_file("out", OUT.value, (".png", ".npz"))
    nearest = command_line.output_file("nearest", NEAREST.value, (".png",)) if NEAREST.value else None
    import latent
    from latent import pictures

    run = latent.load(WORKDIR.value, STEP.value)
    for flag, file in (("out", out), ("nearest", nearest)):
        if file is not None and file.suffix == ".png" and not pictures.is_image(run.spec):
            told = "; use .npz." if flag == "out" else "."
            raise UserError(f"--{flag}={file}: examples of shape {run.spec.shape} are no pictures{told}")
    num = NUM.value or NUMBERS.get(MODE.value, VARIANTS)
    if MODE.value == "generate":
        found = {"x": np.asarray(sampling.applied(run).sample(num, SEED.value, LABEL.value, PROMPT.value))}
        columns, told = math.ceil(math.sqrt(num)), f"{num} samples"
    else:
        found, columns = edited(run, num)
        told = f"{MODE.value} of {len(found['input'])} inputs"
    if MODE.value == "invert":
        error = np.mean((found["x"][: len(found["input"])] - found["input"]) ** 2)
        told += f", made again with a mean squared error of {error:.3g},"
    if out.suffix == ".npz":
        np.savez_compressed(out, **found)
    else:
        from PIL import Image

        above = [] if MODE.value in ("generate", "interpolate") else [found["input"]]
        sheet = pictures.grid(np.concatenate([*above, found["x"]]), columns, pictures.magnification(run.spec))
        Image.fromarray(sheet).save(out)
    print(f"{told} of {run.workdir} at step {run.step}: {out}")
    if nearest is not None:
        draw_nearest(run, found["x"], nearest)
    return 0


if __name__ == "__main__":
    command_line.run(main, required=["workdir", "out"])
