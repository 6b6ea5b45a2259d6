"""The table of methods."""

from __future__ import annotations

import json

import pytest

from duet.cli.main import main
from duet.method_table import METHODS


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
    assert (rows["none"]["stage 1"], rows["visionzip"]["stage 2"]) == ("-", "-")
