"""Encodes a split: codes, labels and indices as one .npz.

python -m experiments.encode --workdir=runs/vae --split=test --out=codes.npz
"""

from __future__ import annotations

import numpy as np
from absl import flags

from experiments import command_line
from latent.errors import unknown_name

WORKDIR = flags.DEFINE_string("workdir", None, "A run.")
STEP = flags.DEFINE_string("step", "latest", "latest, best or a number.")
SPLIT = flags.DEFINE_string("split", "test", "train, validation or test.")
OUT = flags.DEFINE_string("out", None, "A .npz file: mean, sample, label, index and what else the family knows.")
MAP = flags.DEFINE_string("map", None, "Also draw the means in the plane, coloured by class, into this .png.")
PROJECTION = flags.DEFINE_string("projection", "tsne", "How --map projects: pca, tsne or umap.")

MOST_POINTS = 2000
"""Points on a map."""


def main() -> int:
    """Returns the exit code."""
    out = command_line.output_file("out", OUT.value, (".npz",))
    picture = command_line.output_file("map", MAP.value, (".png",)) if MAP.value else None
    import latent
    from latent.analysis import projection

    if PROJECTION.value not in projection.METHODS:
        raise unknown_name("--projection", PROJECTION.value, projection.METHODS)

    run = latent.load(WORKDIR.value, STEP.value)
    codes = run.encode_split(SPLIT.value)
    np.savez_compressed(out, **codes)
    print(f"{len(codes['mean'])} codes of {codes['mean'].shape[1:]} from {run.workdir} at step {run.step}: {out}")
    if picture is not None:
        # A map of more points is slow and no clearer; the subset is the same every time.
        chosen_rows = np.random.default_rng(0).permutation(len(codes["mean"]))[:MOST_POINTS]
        flat = codes["mean"][chosen_rows].reshape(len(chosen_rows), -1)
        chosen = projection.project(flat, PROJECTION.value)
        name = f"{run.config['data']['name']} {SPLIT.value}, {flat.shape[1]} latent dimensions"
        projection.draw(chosen, codes["label"][chosen_rows], picture, f"Codes of {name}")
        print(f"map of the codes, trustworthiness {chosen.trustworthiness:.3f}: {picture}")
    return 0


if __name__ == "__main__":
    command_line.run(main, required=["workdir", "out"])
