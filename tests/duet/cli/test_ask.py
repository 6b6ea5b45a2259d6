"""`duet ask` on a small checkpoint: what it prints, and that the counts are those of the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from duet.cli.main import main

NUMBERS = ["--dominant", "20", "--contextual", "6", "--layers", "16,24", "--ratios", "0.5,0"]


def test_answer_and_line_about_it(picture: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ask", str(picture), "What is it?", "--model", checkpoint, "--max-new-tokens", "3", "--device", "cpu"]
    assert main(words) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("[duet_c_all] visual tokens 576 -> 205 -> 102 -> 0, average 128.0; prefill ")
    assert " ms, decode " in line and "(3 tokens)" in line


def test_compare_as_json(picture: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ask", str(picture), str(picture), "<image> or <image>?", "--model", checkpoint, *NUMBERS]
    assert main([*words, "--compare", "--json", "--max_new_tokens", "2", "--device", "cpu"]) == 0
    result = json.loads(capsys.readouterr().out)
    ours, all_tokens = result["answers"]
    assert ours["visual_tokens"] == [1152, 52, 26, 0] and ours["boundaries"] == [0, 16, 24]
    assert ours["average"] == (16 * 52 + 8 * 26) / 32
    assert (all_tokens["method"], all_tokens["visual_tokens"], all_tokens["average"]) == ("none", [1152], 1152)
    assert all(answer["prefill_ms"] > 0 for answer in result["answers"])
    assert result["budget"]["contextual"] == 6


def test_none_is_the_stock_model(picture: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ask", str(picture), "What is it?", "--model", checkpoint, "--max-new-tokens", "4", "--device", "cpu"]
    main([*words, "--compare", "--json"])
    stock = json.loads(capsys.readouterr().out)["answers"][1]["answer"]
    assert main([*words, "--method", "none"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(stock) and "[none] visual tokens 576, average 576.0" in out


def test_mistakes(picture: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ["ask", str(picture), "What is it?", "--device", "cpu", "--model"]
    for words, message in (
        ([*ask, str(tmp_path / "nowhere")], "no checkpoint at"),
        ([*ask, checkpoint, "--dominant", "600", "--layers", "9", "--ratios", "0"], "the picture has 576"),
        ([*ask, checkpoint, "--layers", "40", "--ratios", "0", "--method", "pyramiddrop"], "has 32 layers"),
        ([*ask, checkpoint, "--dominant", "20"], "has a stage 2"),
        ([*ask, checkpoint, "--score", "loudest"], "loudest"),
        (["ask", str(picture), "<image><image>", *ask[3:], checkpoint], "2 <image> placeholder"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith("duet: error: ") and error.count("\n") == 1
        assert message in error


def test_a_file_that_is_no_picture(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 not much")
    assert main(["ask", str(broken), "What is it?", "--model", checkpoint, "--device", "cpu"]) == 2
    assert str(broken) in capsys.readouterr().err
