"""Turns a trained classifier run into a shipped feature extractor.

python -m scripts.export_extractor runs/lenet_mnist --out=latent/extractors/lenet_mnist.npz
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import latent
from latent.errors import UserError
from latent.extractors import lenet


def main() -> None:
    """Prints hash, test accuracy and size of what was written; exit code 2 where the run is no classifier."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        run = latent.load(arguments.workdir)
        if run.config["model"]["name"] != "classifier":
            raise UserError(f"{arguments.workdir} is a {run.config['model']['name']}, not a classifier.")
        results = {result.name: result for result in run.evaluate(["accuracy"], "test")}
        start = json.loads((arguments.workdir / "provenance.json").read_text())[0]
        card = {
            "command": "python -m experiments.train " + " ".join(w for w in start["command"][1:] if "workdir" not in w),
            "commit": start["commit"],
            "data": run.config["data"]["name"],
            "data_sha256": start["data"]["sha256"],
            "shape": run.spec.shape,
            "num_classes": run.spec.num_classes,
            "model": run.config["model"],
            "weights": run.average or "raw",
            "test_accuracy": results["accuracy"].value,
            "standard_error": results["accuracy"].standard_error,
        }
        params = {name: run.state.params[name] for name in ("trunk", "head")}
        sha256 = lenet.write(arguments.out, params, card)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    size = arguments.out.stat().st_size / 1000
    print(f"{arguments.out}: SHA-256 {sha256[:16]}, test accuracy {card['test_accuracy']:.4f}, {size:.0f} kB")


if __name__ == "__main__":
    main()
