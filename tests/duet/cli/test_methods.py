"""The table of methods."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from duet.cli.main import main
from duet.method_table import METHODS
from tests.plugin import DOCS, write_plugin


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Path]:
    kept = dict(METHODS)
    yield write_plugin(tmp_path)
    METHODS.clear()
    METHODS.update(kept)


def test_table_has_every_method_and_its_stages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert METHODS.keys() <= rows.keys()
    assert "DuetMerge" in rows["duet_c_all"] and "DuetPrune (all)" in rows["duet_c_all"]
    assert "duet_c_all" in rows["duet"]


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["duet_c_all"]["aliases"] == ["duet"]
    assert (rows["none"]["stage 1"], rows["visionzip"]["stage 2"]) == ("", "")


def test_one_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "duet"]) == 0
    shown = capsys.readouterr().out
    assert "duet/visionzip/duet_merge.py, duet/pyramiddrop/duet_prune.py" in shown and "cls_attention, keys" in shown
    assert main(["methods", "stage1:visionzip+stage2:pyramiddrop", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stage 2"] == "PyramidDrop"


def test_the_table_in_the_docs_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """To renew it: duet methods --markdown, between the two marks of docs/methods.md."""
    assert main(["methods", "--markdown"]) == 0
    text = DOCS.read_text(encoding="utf-8")
    table = text.split("<!-- made by: duet methods --markdown -->\n")[1].split("<!-- end -->")[0]
    assert table == capsys.readouterr().out


def test_a_method_from_a_plugin_is_listed(capsys: pytest.CaptureFixture[str], plugin: Path) -> None:
    assert main(["methods", "largest_norm", "--plugin", str(plugin)]) == 0
    shown = capsys.readouterr().out
    assert "the largest feature norm" in shown and "--option power=" in shown
    assert main(["methods", "--plugin", "nowhere.py"]) == 2
    assert "--plugin nowhere.py: no such file" in capsys.readouterr().err
