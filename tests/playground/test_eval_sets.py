"""The held-out sets have the files, fields and pictures that the six benchmarks' readers expect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from duet.llava.prompts import OPTION_LETTER, SHORT_ANSWER
from playground.mini.draw import draw, noise
from playground.mini.eval_sets import WRITERS

COUNT = 42


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("eval")
    for name, write in WRITERS.items():
        write(root / name, COUNT, 0, draw)
    return root


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def check_picture(path: Path) -> None:
    with Image.open(path) as picture:
        assert picture.size == (80, 80)


def test_pope_labels_match_the_questions_by_position(root: Path) -> None:
    asked = lines(root / "pope" / "llava_pope_test.jsonl")
    assert len({row["question_id"] for row in asked}) == len(asked) == COUNT
    for category in ("adversarial", "popular", "random"):
        labels = lines(root / "pope" / "coco" / f"coco_pope_{category}.json")
        rows = [row for row in asked if row["category"] == category]
        assert [row["text"] for row in rows] == [f"{label['text']}\n{SHORT_ANSWER}" for label in labels]
        assert [label["question_id"] for label in labels] == list(range(1, len(labels) + 1))
        assert [label["label"] for label in labels].count("yes") * 2 == len(labels)
        for row in rows:
            check_picture(root / "pope" / "val2014" / row["image"])


def test_gqa_annotations_by_question_id(root: Path) -> None:
    notes = json.loads((root / "gqa" / "data" / "testdev_balanced_questions.json").read_text())
    for row in lines(root / "gqa" / "llava_gqa_testdev_balanced.jsonl"):
        note = notes[row["question_id"]]
        assert row["text"] == f"{note['question']}\n{SHORT_ANSWER}"
        assert note["answer"] == note["answer"].lower()
        assert note["isBalanced"] is True
        check_picture(root / "gqa" / "data" / "images" / row["image"])


def test_textvqa_has_ten_answers_and_an_empty_ocr_line(root: Path) -> None:
    notes = json.loads((root / "textvqa" / "TextVQA_0.5.1_val.json").read_text())["data"]
    found = {(note["image_id"], note["question"]): note for note in notes}
    for row in lines(root / "textvqa" / "llava_textvqa_val_v051_ocr.jsonl"):
        question, ocr, suffix = row["text"].split("\n")
        assert (ocr, suffix) == ("Reference OCR token: ", SHORT_ANSWER)
        assert len(found[row["question_id"], question.lower()]["answers"]) == 10
        check_picture(root / "textvqa" / "train_images" / row["image"])


def test_mme_answers_are_next_to_their_pictures_in_both_layouts(root: Path) -> None:
    rows = lines(root / "MME" / "llava_mme.jsonl")
    release = root / "MME" / "MME_Benchmark_release_version"
    assert (release / "scene" / "questions_answers_YN").is_dir()
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        assert first["image"] == second["image"] == first["question_id"]
        path = release / first["image"]
        check_picture(path)
        folder = path.parent.parent / "questions_answers_YN" if path.parent.name == "images" else path.parent
        answers = [line.split("\t") for line in (folder / f"{path.stem}.txt").read_text().splitlines()]
        assert [answer for _, answer in answers] == ["Yes", "No"]
        for row, (text, _) in zip((first, second), answers, strict=True):
            assert row["text"] == text.replace(" Please answer yes or no.", f"\n{SHORT_ANSWER}")


def test_scienceqa_problems_splits_and_pictures(root: Path) -> None:
    folder = root / "scienceqa"
    rows = json.loads((folder / "llava_test_CQM-A.json").read_text())
    problems = json.loads((folder / "problems.json").read_text())
    assert json.loads((folder / "pid_splits.json").read_text())["test"] == [row["id"] for row in rows]
    for row in rows:
        problem, (asked, answer) = problems[row["id"]], (turn["value"] for turn in row["conversations"])
        assert "ABCDE"[problem["answer"]] == answer
        assert f"{answer}. {problem['choices'][problem['answer']]}" in asked.split("\n")
        assert asked.startswith("<image>\n") == ("image" in row) == (problem["image"] is not None)
        if "image" in row:
            check_picture(folder / "images" / "test" / row["image"])
    assert 0 < sum("image" not in row for row in rows) < len(rows) / 2


def test_seed_bench_types_ids_and_pictures_without_ending(root: Path) -> None:
    folder = root / "seed_bench"
    bench = json.loads((folder / "SEED-Bench.json").read_text())
    names = {number: name for name, number in bench["question_type"].items()}
    notes = {note["question_id"]: note for note in bench["questions"]}
    rows = lines(folder / "llava-seed-bench.jsonl")
    assert len(rows) == COUNT
    for row in rows:
        note = notes[str(row["question_id"])]
        assert names[note["question_type_id"]] == row["category"]
        assert row["text"].endswith(OPTION_LETTER)
        assert f"A. {note['choice_a']}" in row["text"]
        check_picture(folder / row["image"])


def test_noise_changes_the_pictures_and_nothing_else(root: Path, tmp_path: Path) -> None:
    WRITERS["pope"](tmp_path, COUNT, 0, noise)
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        same = path.read_bytes() == (root / "pope" / path.relative_to(tmp_path)).read_bytes()
        assert same == (path.suffix != ".png")
