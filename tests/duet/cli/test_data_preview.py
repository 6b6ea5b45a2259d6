"""`duet data preview`: the golden ids and labels through the command, and what it says about rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from duet.cli.main import main
from tests.golden_llava import FOLDER as LLAVA
from tests.golden_training import FOLDER, TOY, cases, content


def preview(tmp_path: Path, file: Path, *words: str) -> list[dict[str, Any]]:
    out = tmp_path / "rows.json"
    assert main(["data", "preview", str(file), "--json", str(out), *words]) == 0
    return json.loads(out.read_text(encoding="utf-8"))


def compare(found: list[dict[str, Any]], expected: list[dict[str, Any]], ids: list[str]) -> None:
    assert [row["row"] for row in found] == ids
    by_name = {row["row"]: row for row in found}
    for case in expected:
        row = by_name[case["row"]]
        if "input_ids" in case:
            assert (row["input_ids"], row["labels"]) == (case["input_ids"], case["labels"]), case["row"]
        else:
            assert set(row) == {"row", "left_out"} and row["left_out"], case["row"]


@pytest.mark.parametrize("mode", ["v1", "plain", "mistral_instruct"])
@pytest.mark.parametrize("name", ["spm", "spm_legacy", "toy_legacy_flag"])
def test_the_original_s_ids_and_labels(name: str, mode: str, tmp_path: Path) -> None:
    source = ["--model", str(TOY), "--model-max-length", "320"]
    if name != "toy_legacy_flag":
        source = ["--tokenizer", str(FOLDER / "tokenizers" / name)]
    found = preview(tmp_path, FOLDER / "rows.json", *source, "--version", mode, "--tokenization", "original")
    compare(found, [case for case in cases(name) if case["mode"] == mode], [row["id"] for row in content("rows")])


@pytest.mark.parametrize("tokenization", ["original", "duet_video", "video_llava"])
@pytest.mark.parametrize("name", ["spm", "spm_legacy"])
def test_videos(tokenization: str, name: str, tmp_path: Path) -> None:
    words = ["--tokenizer", str(FOLDER / "tokenizers" / name), "--version", "v1", "--tokenization", tokenization]
    found = preview(tmp_path, FOLDER / "rows_video.json", *words)
    expected = cases("duet_video" if tokenization == "original" else tokenization)
    wanted = [case for case in expected if case["tokenizer"] == name and case["mode"] == "v1"]
    assert wanted
    compare(found, wanted, [row["id"] for row in content("rows_video")])


def test_qwen(tmp_path: Path) -> None:
    words = ["--tokenizer", str(FOLDER / "tokenizers" / "qwen"), "--tokenization", "original"]
    found = preview(tmp_path, FOLDER / "rows_qwen.json", *words)
    compare(found, cases("qwen"), [row["id"] for row in content("rows_qwen")])


def test_ours_is_right_where_the_original_is_wrong(tmp_path: Path) -> None:
    """Rows that merely contain a separator, and a question without an answer at the end, keep their labels."""
    words = ["--tokenizer", str(FOLDER / "tokenizers" / "spm"), "--version", "v1"]
    found = {row["row"]: row for row in preview(tmp_path, FOLDER / "rows.json", *words)}
    for name, ends in (("answer_has_end_token", 2), ("question_has_assistant", 2), ("ends_with_question", 1)):
        labels = [label for label in found[name]["labels"] if label != -100]
        assert labels.count(2) == ends and labels[-1] == 2, name
    assert found["picture_list"]["input_ids"].count(-200) == 2
    assert "empty answer" in found["empty_answer"]["left_out"]
    assert "row 9" not in json.dumps(found["gpt_first"])


def test_a_picture_stays_where_it_is_unless_the_original_is_asked_for(tmp_path: Path) -> None:
    words = ["--tokenizer", str(FOLDER / "tokenizers" / "spm_legacy"), "--version", "v1"]
    ours = {row["row"]: row for row in preview(tmp_path, FOLDER / "rows.json", *words)}
    words += ["--tokenization", "original"]
    theirs = {row["row"]: row for row in preview(tmp_path, FOLDER / "rows.json", *words)}
    assert ours["image_last"]["input_ids"].index(-200) > theirs["image_last"]["input_ids"].index(-200)


def test_a_row_without_an_id_has_its_number(tmp_path: Path) -> None:
    said = [{"from": "human", "value": "Is it?"}, {"from": "gpt", "value": "Yes."}]
    file = tmp_path / "rows.jsonl"
    rows: list[Any] = [{"conversations": said}, "no row", {"id": 7, "conversations": said}]
    file.write_text("\n".join(map(json.dumps, rows)))
    found = preview(tmp_path, file, "--model", str(LLAVA / "weights_hf"))
    assert [row["row"] for row in found] == [0, 1, 7]
    assert "left_out" in found[1]


def test_one_row_is_shown_with_its_learned_part(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--tokenizer", str(FOLDER / "tokenizers" / "spm"), "--version", "v1", "--row", "image_three_turns"]
    assert main(["data", "preview", str(FOLDER / "rows.json"), *words]) == 0
    shown = capsys.readouterr().out
    assert shown.count("{+") == 3 and "{+Two.</s>+}" in shown and "<image>" in shown
    assert "38 rows, 10 left out" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--version", "v11"], "no prompt template 'v11'"),
        (["--tokenization", "origin"], "did you mean original"),
        (["--row", "none"], "has no row 'none'"),
        (["--version", "v11", "--tokenization", "original"], "no prompt format 'v11'"),
    ],
)
def test_mistakes(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = ["--tokenizer", str(FOLDER / "tokenizers" / "spm")]
    assert main(["data", "preview", str(FOLDER / "rows.json"), *source, *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("model_type", "opening"), [("llava_mistral", "[INST]"), ("llava_llama", "USER:")])
def test_llava_next_of_the_original_layout_speaks_as_its_language_model(
    model_type: str, opening: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(FOLDER / "tokenizers" / "spm", tmp_path / "model")
    settings = {"model_type": model_type, "mm_vision_tower": "clip", "mm_patch_merge_type": "spatial_unpad"}
    (tmp_path / "model" / "config.json").write_text(json.dumps(settings))
    said = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "a star"}]
    (tmp_path / "rows.json").write_text(json.dumps([{"image": "a.png", "conversations": said}]))
    assert main(["data", "preview", str(tmp_path / "rows.json"), "--model", str(tmp_path / "model")]) == 0
    assert opening in capsys.readouterr().out
