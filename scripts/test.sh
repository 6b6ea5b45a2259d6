#!/usr/bin/env bash
# Lint, types and tests, in the environment that is active (pip install -e ".[dev]").
#   bash scripts/test.sh                 everything that CI runs
#   bash scripts/test.sh -k golden       arguments go to pytest
# Longer tests: bash scripts/test.sh -m slow. GPU tests: bash scripts/test.sh -m gpu.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
python="${PYTHON:-python}"

"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy
"$python" -m pytest -q -n "${PYTEST_WORKERS:-2}" "$@"
