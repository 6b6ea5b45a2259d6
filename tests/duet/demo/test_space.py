"""`deploy/space`: its requirements are those of the package, and its page comes up."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.duet.demo import pages

ROOT = Path(__file__).parents[3]
SPACE = ROOT / "deploy" / "space"


def test_requirements_are_those_of_the_package() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no reader of pyproject.toml")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = {*project["dependencies"], *extras["serve"], *extras["plot"], *extras["demo"]}
    lines = (SPACE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert {line for line in lines if not line.startswith("#")} == {
        one for one in wanted if not one.startswith("duet-vlm")
    }


@pytest.mark.slow
def test_it_comes_up(tmp_path: Path) -> None:
    with pages.free_port() as port:
        pass
    settings = {"GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1", "HF_HUB_OFFLINE": "1"}
    space = subprocess.Popen([sys.executable, str(SPACE / "app.py")], cwd=tmp_path, env={**os.environ, **settings})
    try:
        end = time.monotonic() + 120
        while not pages.answers(port):
            assert space.poll() is None and time.monotonic() < end
            time.sleep(0.5)
        visitor = pages.Visitor(f"http://127.0.0.1:{port}")
        assert visitor.config["title"] == "DUET-VLM"
    finally:
        space.terminate()
        space.wait(30)
