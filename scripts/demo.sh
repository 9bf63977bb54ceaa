#!/usr/bin/env bash
# From a fresh machine to a VAE on real digits and a diffusion model in its latent space: install, train, evaluate,
# sample, draw a map of the codes, make the latent report.
# usage: demo.sh [WORKDIR]       (default runs/demo; running it again continues or re-evaluates the runs)
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install.sh
run=${1:-runs/demo}
python=.venv/bin/python
start=$(date +%s)
"$python" -m experiments.train --config=configs/vae.py:digits --workdir="$run"
echo
"$python" -m experiments.evaluate --workdir="$run"
echo
"$python" -m experiments.sample --workdir="$run" --num=64 --out="$run/samples.png"
"$python" -m experiments.encode --workdir="$run" --split=test --out="$run/codes.npz" --map="$run/map.png"
echo
"$python" -m experiments.train --config=configs/latent_ddpm.py:digits --workdir="$run/ddpm" --config.model.first_stage="$run"
echo
"$python" -m experiments.evaluate --workdir="$run/ddpm"
echo
"$python" -m experiments.sample --workdir="$run/ddpm" --num=64 --guidance=2 \
  --out="$run/ddpm_samples.png" --nearest="$run/ddpm_nearest.png"
echo
"$python" -m experiments.analyze --workdir="$run"
echo
echo "done in $(($(date +%s) - start)) s after the install. Look at:"
ls -1 "$run"/images/*reconstructions.png | sort -V | tail -n 1
echo "$run/samples.png"
echo "$run/map.png"
echo "$run/ddpm_samples.png"
echo "$run/ddpm_nearest.png   (samples above the training images nearest to them)"
echo "$run/report/index.html   (open it in a browser: the latent report)"
