#!/usr/bin/env bash
# Makes .venv with everything the project needs; quick when nothing has changed. Called by demo.sh and test.sh.
# usage: install.sh [EXTRA]      e.g. install.sh test
set -euo pipefail
cd "$(dirname "$0")/.."
extra=${1:-}
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  { echo "error: Python 3.11 or newer is needed, $python is $("$python" --version 2>&1); set PYTHON=" >&2; exit 2; }
gpu=""
if nvidia-smi >/dev/null 2>&1; then gpu="jax[cuda12]"; fi
stamp=".venv/installed${extra:+-$extra}"
want=$(cat requirements.txt pyproject.toml; echo "$gpu")
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && exit 0
[ -x .venv/bin/python ] || "$python" -m venv .venv
echo "installing into .venv (a minute or two) ..."
.venv/bin/python -m pip install --quiet --disable-pip-version-check ${gpu:+"$gpu"} -e ".${extra:+[$extra]}"
printf '%s' "$want" >"$stamp"
