#!/usr/bin/env bash
# Updates the table in docs/methods.md.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python}"
"$python" - "$("$python" -m duet.cli.main methods --markdown)" <<'PY'
import sys
from pathlib import Path

path, start, end = Path("docs/methods.md"), "<!-- made by: duet methods --markdown -->\n", "<!-- end -->"
text = path.read_text(encoding="utf-8")
before, rest = text.split(start)
path.write_text(before + start + sys.argv[1] + "\n" + end + rest.split(end)[1], encoding="utf-8")
PY
