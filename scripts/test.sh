#!/usr/bin/env bash
# Lint, format check and every test not marked slow; --all runs the slow ones too. Other arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install.sh test
marked=()
if [ "${1:-}" = "--all" ]; then shift; marked=(-m "slow or not slow"); fi
.venv/bin/ruff check .
.venv/bin/ruff format --check .
exec .venv/bin/python -m pytest -q -n "${TEST_PROCESSES:-2}" --dist worksteal "${marked[@]}" "$@"
