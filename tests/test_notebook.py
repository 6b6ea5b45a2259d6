"""The notebook's cells run, and it is kept without outputs."""

from __future__ import annotations

import json
from pathlib import Path

CELLS = json.loads((Path(__file__).parents[1] / "notebooks" / "quickstart.ipynb").read_text())["cells"]


def test_the_notebook_runs(capsys):
    names: dict = {}
    for cell in CELLS:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert names["answer"].strip() and len(names["trace"].lengths) == 3
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and all(len(line.split()) >= 2 for line in lines)


def test_outputs_are_not_kept():
    assert not any(cell.get("outputs") for cell in CELLS)
