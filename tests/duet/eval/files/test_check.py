"""`duet data check` and `duet data layout` on a small POPE."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from duet.cli.main import main
from duet.eval.benchmarks import BENCHMARKS, get
from duet.eval.files import check as checking
from duet.eval.files.check import check
from duet.eval.files.layout import layout_of, questions_of, tree
from tests.eval_files import SHORT, lines


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three questions, one per category, on two pictures."""
    rows, folder = [], tmp_path / "pope"
    for number, category in enumerate(("adversarial", "popular", "random"), start=1):
        row = {"question_id": number, "image": f"{number % 2}.png", "text": "Is there a dog in the image?"}
        lines(folder / "coco" / f"coco_pope_{category}.json", [{**row, "label": "yes"}])
        rows.append({**row, "text": row["text"] + SHORT, "category": category})
    lines(folder / "llava_pope_test.jsonl", rows)
    (folder / "val2014").mkdir()
    for name in ("0.png", "1.png"):
        Image.new("RGB", (8, 8)).save(folder / "val2014" / name)
    return tmp_path


def test_good_data(data):
    report = check("pope", data, official=False)
    assert report.good
    assert (report.questions, report.pictures, report.videos) == (3, 2, 0)


def test_unreadable_and_missing_pictures_are_named(data):
    whole = (data / "pope" / "val2014" / "0.png").read_bytes()
    (data / "pope" / "val2014" / "0.png").write_bytes(whole[: len(whole) // 2])
    (data / "pope" / "val2014" / "1.png").unlink()
    report = check("pope", data, official=False)
    assert len(report.problems) == 2
    assert any("cannot be read" in text or "cannot read" in text for text in report.problems if "0.png" in text)
    assert any("no such picture" in text for text in report.problems if "1.png" in text)


def test_other_numbers_and_contents_than_the_official_ones(data, monkeypatch):
    report = check("pope", data)
    assert any("llava_pope_test.jsonl: 3 rows, the official file has 8910" in text for text in report.differences)
    assert any("name 2 pictures, the official ones 500" in text for text in report.differences)
    path = data / "pope" / "llava_pope_test.jsonl"
    entry = replace(layout_of("pope").files[0], rows=3)
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    for sha256, wanted in (
        (right, ()),
        ("0" * 64, (f"{path}: as many rows as the official file, but different content",)),
    ):
        own = replace(layout_of("pope"), files=(replace(entry, sha256=sha256),))
        monkeypatch.setattr(checking, "layout_of", lambda task, own=own: own)
        assert [text.split(" (sha")[0] for text in check("pope", data).differences] == list(wanted)


def test_exit_codes_and_output(data, capsys):
    words = ["data", "check", "pope", "--data", str(data)]
    assert main([*words, "--unofficial"]) == 0
    assert "3 questions on 2 pictures: complete" in capsys.readouterr().out
    assert main(words) == 3
    assert "differs: " in capsys.readouterr().out
    assert main([*words, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)[0]["differences"]
    (data / "pope" / "coco" / "coco_pope_random.json").unlink()
    assert main(words) == 2
    assert "coco_pope_random.json" in capsys.readouterr().err


@pytest.mark.parametrize("task", BENCHMARKS)
def test_layouts_name_the_files_that_are_read(task):
    benchmark, layout = get(task), layout_of(task)
    paths = {entry.path.rstrip("/") for entry in layout.files}
    assert set(benchmark.markers) <= paths or any(path.startswith(benchmark.markers[-1]) for path in paths)
    assert layout.folder.endswith(benchmark.folder)
    assert all(entry.source for entry in layout.files)
    assert questions_of(task)[0] > 1000


def test_tree(capsys):
    assert main(["data", "layout", "pope", "--data", "data/"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("data/pope/\n  llava_pope_test.jsonl")
    assert "500 pictures   6.6 GB   http://images.cocodataset.org" in text
    assert tree([layout_of("tgif")], "x").startswith("x/GPT_Zero_Shot_QA/TGIF_Zero_Shot_QA/")
    assert main(["data", "layout", "vqav2"]) == 2
