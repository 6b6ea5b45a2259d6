"""The worked example of docs/methods.md, as a file."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs" / "methods.md"


def write_plugin(folder: Path) -> Path:
    """The code block that registers a method."""
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    (code,) = [block for block in blocks if "duet.register(" in block]
    path = folder / "largest_norm.py"
    path.write_text(code, encoding="utf-8")
    return path
