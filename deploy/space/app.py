"""A Space that shows the small world's model, or the one that the variable `DUET_MODEL` names. See docs/demo.md."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import duet  # noqa: E402
from duet.demo.examples import small_world  # noqa: E402
from duet.demo.model import Demo, title_of  # noqa: E402
from duet.demo.page import build, launch_options  # noqa: E402

METHODS = ["duet", "visionzip"]
MINI = ROOT / "playground" / "mini" / "checkpoints" / "llava-mini"

path = os.environ.get("DUET_MODEL") or str(MINI)
demo = Demo(*duet.load(path), title_of(path))
demo.warm_up(METHODS)
page = build(demo, METHODS, 2 / 9, small_world() if path == str(MINI) else ())

if __name__ == "__main__":
    page.launch(**launch_options(demo))
