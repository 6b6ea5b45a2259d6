"""The commands as a user runs them, with broken input: exit code 2, one line on standard error, no traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.llava_checkpoints import HF, copy_of, edit_json

ROOT = Path(__file__).parents[2]


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command line in its own process."""
    launcher = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # another test may have set them
    own = {name: value for name, value in os.environ.items() if name not in launcher}
    environment = {**own, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), **variables}
    environment["PYTHONWARNINGS"] = "ignore::DeprecationWarning"
    return subprocess.run(
        [sys.executable, "-m", *words],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr, done.stderr
    assert all(part in done.stderr for part in parts), done.stderr
    assert not done.stdout


@pytest.fixture
def picture(tmp_path: Path) -> str:
    Image.new("RGB", (40, 30), (9, 99, 9)).save(tmp_path / "picture.png")
    return str(tmp_path / "picture.png")


@pytest.mark.parametrize("command", ["ask", "viz"])
def test_a_question_that_no_file_name_can_be(command: str, picture: str, tmp_path: Path) -> None:
    """It is a question all the same: only the checkpoint is wrong."""
    words = ["duet.cli.main", command, picture, "What is it? " * 100, "--model", str(tmp_path / "none")]
    refused(run(*words), "no checkpoint at")


def test_pictures_questions_and_checkpoints(picture: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    refused(run("duet.cli.main", "viz", str(tmp_path / "pipe.png"), "What?"), "pipe.png is a pipe")
    refused(run("duet.cli.main", "ask", picture, os.fsdecode(b"What\xff?")), "the question is not UTF-8")
    folder = copy_of(HF, tmp_path)
    edit_json(folder / "config.json", text_config=None)
    refused(run("duet.cli.main", "ask", picture, "What?", "--model", str(folder)), "config.json has no text_config")


def test_an_output_that_cannot_be_written(picture: str, tmp_path: Path) -> None:
    (tmp_path / "taken.png").mkdir()
    for place in (tmp_path / "taken.png", Path("/proc/kept.png")):
        refused(run("duet.cli.main", "viz", picture, "What?", "--model", str(HF), "-o", str(place)), str(place))


def test_training(picture: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    rows = tmp_path / "rows.json"
    spoken = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A ring"}]
    rows.write_text(json.dumps([{"id": "0", "video": "a.mp4", "conversations": spoken}]))
    recipe = {
        "model": {"model_name_or_path": str(HF)},
        "data": {"data_path": str(rows)},
        "training": {"output_dir": str(tmp_path / "out"), "use_cpu": True},
    }
    path.write_text(yaml.safe_dump(recipe))
    refused(run("duet.train.run", str(path)), str(path), str(rows), "row 0 (id '0'): 1 video(s) but 0 <video>")
    refused(run("duet.train.run", str(path), "training.learning_rate=.nan"), str(path), "learning_rate")
    refused(run("duet.train.run", str(path), "--bogus"), "unknown flag --bogus")


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """What the machine says in the middle of the work is one line, too."""
    from duet.cli import main as program

    def full(args: object) -> int:
        raise OSError(28, "No space left on device", str(tmp_path / "kept.png"))

    monkeypatch.setattr("duet.cli.methods.run", full)
    assert program.main(["methods"]) == 2
    assert (
        capsys.readouterr().err == f"duet: error: OSError: [Errno 28] No space left on device: '{tmp_path}/kept.png'\n"
    )


def test_a_name_that_the_terminal_has_no_letters_for(tmp_path: Path) -> None:
    """`LC_ALL=C` prints the answer with escapes instead of stopping."""
    place = os.fsdecode(str(tmp_path / "bild").encode() + b"\xff.png")
    Image.new("RGB", (40, 30)).save(tmp_path / "picture.png")
    shutil.copy(tmp_path / "picture.png", place)
    words = ["ask", place, "Was ist das für ein Bild?", "--model", str(HF), "--device", "cpu", "--max-new-tokens", "1"]
    done = run("duet.cli.main", *words, "--json", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert "bild" in done.stdout and "f\\xfcr" in done.stdout
