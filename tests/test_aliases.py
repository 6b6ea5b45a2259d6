"""The names of the paper's README and of the original repositories lead to the code in `duet/`, and to nothing else."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("module", "name", "home"),
    [
        ("visionzip", "visionzip", "duet.visionzip"),
        ("visionzip", "visionzip_video", "duet.visionzip"),
        ("llava.model.builder", "load_pretrained_model", "duet.llava.model.builder"),
        ("videollava.model.builder", "load_pretrained_model", "duet.videollava.model.builder"),
        ("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", "duet.qwen2_5_vl"),
        ("qwen2_5_vl", "configure_duet", "duet.qwen2_5_vl"),
        ("pyramiddrop", "DuetPrune", "duet.pyramiddrop.duet_prune"),
    ],
)
def test_an_alias_is_the_same_object(module, name, home):
    assert getattr(import_module(module), name) is getattr(import_module(home), name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("project", "names"),
    [(".", {"duet"}), ("packaging/aliases", {"visionzip", "pyramiddrop", "llava", "videollava", "qwen2_5_vl"})],
)
def test_a_wheel_owns_the_names_it_should(project, names, tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT / project],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist() if ".dist-info" not in name}
    assert tops == names
