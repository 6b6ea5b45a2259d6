#!/usr/bin/env bash
# Lint, types and tests. In a fresh clone it first creates its environment (.venv).
#   bash scripts/test.sh                 everything that CI runs
#   bash scripts/test.sh -k golden       arguments go to pytest
#   PYTHON=~/venvs/duet/bin/python bash scripts/test.sh
# The environment is the interpreter in PYTHON, else the virtual environment in VENV, else the active one, else .venv.
# Missing packages are installed into it. Slow tests: -m slow. GPU tests: -m gpu.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

if [ -n "${PYTHON:-}" ]; then
    python="$PYTHON"
else
    venv="${VENV:-${VIRTUAL_ENV:-.venv}}"
    python="$venv/bin/python"
    [ -x "$python" ] || python3 -m venv "$venv"
fi

# the project's own requirements and those of the extra "dev", as pyproject.toml has them today
complete() {
    "$python" - <<'EOF'
import re, sys
from importlib import metadata
from pathlib import Path

try:
    from packaging.requirements import Requirement
except ImportError:
    sys.exit(1)
text = Path("pyproject.toml").read_text(encoding="utf-8")
lists = re.findall(r"^(?:dependencies|dev) = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
lines = [line for part in lists for line in part.splitlines() if not line.strip().startswith("#")]
for wanted in (Requirement(found) for line in lines for found in re.findall(r'"([^"]+)"', line)):
    try:
        version = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        sys.exit(1)
    if not wanted.specifier.contains(version, prereleases=True):
        sys.exit(1)
EOF
}
complete || "$python" -m pip install --retries 10 --timeout 60 -e ".[dev]"

"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy
"$python" -m pytest -q -n "${PYTEST_WORKERS:-2}" "$@"
