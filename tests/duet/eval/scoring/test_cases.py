"""Real prediction files against the output of the official scorers, row by row where they give rows (DUET_CASES)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from duet.eval.benchmarks import get
from duet.eval.scoring.predictions import read_predictions
from duet.eval.types import Prediction, Score
from duet.llava.prompts import vicuna_v1, with_picture
from tests.eval_files import case, document, lines

EXACT = {"rel": 1e-9, "abs": 1e-9}
BOTH_MODES = pytest.mark.parametrize("official", [False, True])


def load_case(name: str, task: str, official: bool = False) -> tuple[Score, dict[str, Any]]:
    folder = case(name)
    score = get(task).score(folder, read_predictions(folder / "predictions.jsonl"), official=official)
    assert score.complete and (score.counts.duplicate, score.counts.unknown) == (0, 0)
    return score, json.loads((folder / "expected.json").read_text(encoding="utf-8"))


@BOTH_MODES
def test_pope_llava_13b(official):
    score, expected = load_case("pope/real_llava15_13b", "pope", official)
    for category, wanted in expected["per_category"].items():
        tally = score.summary.tallies[category]
        assert [tally[kind.lower()] for kind in ("TP", "FP", "TN", "FN")] == [
            wanted[k] for k in ("TP", "FP", "TN", "FN")
        ]
        for name in ("accuracy", "precision", "recall", "f1", "yes_ratio"):
            assert score.summary.metrics[f"{category}_{name}"] == pytest.approx(100 * wanted[name], **EXACT)
    assert score.headline == pytest.approx(100 * expected["summary"]["mean_f1_over_categories"], **EXACT)
    assert f"{score.headline:.2f}" == "85.95" and score.other == pytest.approx(score.headline, **EXACT)


def test_pope_cut_like_a_public_run():
    folder = case("pope/real_llava15_13b")
    predictions = read_predictions(folder / "predictions.jsonl")[:5712]
    score = get("pope").score(folder, predictions)
    assert (score.counts.missing, score.complete) == (8910 - 5712, False)
    assert score.headline < 60


def test_pope_shuffled_file_scores_the_same():
    folder = case("pope/real_llava15_13b")
    predictions = read_predictions(folder / "predictions.jsonl")
    assert f"{get('pope').score(folder, predictions[::-1]).headline:.2f}" == "85.95"


@BOTH_MODES
def test_gqa(official):
    score, expected = load_case("gqa/real_val5_with_images", "gqa", official)
    wanted, values = expected["official"], score.summary.metrics
    for name in ("accuracy", "binary", "open", "distribution"):
        assert f"{values[name]:.2f}" == f"{wanted[name]:.2f}"
    titles = {
        "structural": "structural type",
        "semantic": "semantic type",
        "steps": "steps number",
        "words": "words number",
    }
    for short, title in titles.items():
        for kind, row in wanted[f"Accuracy / {title}"].items():
            assert f"{values[f'{short}/{kind}']:.2f}" == f"{row['accuracy']:.2f}"
            assert score.summary.tallies[f"{short}/{kind}"]["rows"] == row["n"]
    parsed = {row["question_id"]: row["parsed"] for row in score.rows}
    assert parsed == {name: row["converted"] for name, row in expected["per_question"].items()}


def test_gqa_pictures_are_found():
    assert all(Path(sample.images[0]).is_file() for sample in get("gqa").load(case("gqa/real_val5_with_images")))


@BOTH_MODES
def test_textvqa(official):
    score, expected = load_case("textvqa/real30_llava15_13b", "textvqa", official)
    assert score.headline == pytest.approx(expected["accuracy_exact"], **EXACT)
    assert len(score.rows) == len(expected["per_question"]) == 30
    for row, wanted in zip(score.rows, expected["per_question"], strict=True):
        assert (row["question_id"], row["parsed"]) == (wanted["question_id"], wanted["normalized"])
        assert row["score"] == pytest.approx(wanted["score"], **EXACT)


def check_mme(score: Score, expected: dict[str, Any]) -> None:
    values, tallies = score.summary.metrics, score.summary.tallies
    assert score.headline == pytest.approx(expected["total_reported_by_pruning_papers"], **EXACT)
    assert values["perception"] == pytest.approx(expected["perception"], **EXACT)
    assert values["cognition"] == pytest.approx(expected["cognition"], **EXACT)
    for part in expected["scores"].values():
        for subtask, points in part["subtasks"].items():
            assert values[subtask] == pytest.approx(points, **EXACT)
    for subtask, row in expected["per_subtask_acc"].items():
        assert values[f"{subtask}_acc"] == pytest.approx(row["acc"], **EXACT)
        assert values[f"{subtask}_acc_plus"] == pytest.approx(row["acc_plus"], **EXACT)
        counts = (row["n_questions"], row["n_images"], row["other"])
        assert tuple(tallies[subtask][name] for name in ("questions", "pictures", "other")) == counts


@BOTH_MODES
@pytest.mark.parametrize("name", ["MME/real_llava15_7b", "MME/tree_layout"])
def test_mme(name, official):
    check_mme(*load_case(name, "mme", official))


def test_mme_table_written_back_as_the_release(tmp_path):
    folder = case("MME/real_llava15_7b")
    for row in map(json.loads, (folder / "gt.jsonl").read_text(encoding="utf-8").splitlines()):
        path = tmp_path / "MME_Benchmark_release_version" / row["category"] / f"{row['id']}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{row['question']}\t{row['answer']}\n")
    (tmp_path / "llava_mme.jsonl").write_bytes((folder / "llava_mme.jsonl").read_bytes())
    score = get("mme").score(tmp_path, read_predictions(folder / "predictions.jsonl"))
    check_mme(score, json.loads((folder / "expected.json").read_text(encoding="utf-8")))


@BOTH_MODES
def test_scienceqa(official):
    score, expected = load_case("scienceqa/real_llava_lcs558k_12e", "sqa", official)
    assert score.headline == pytest.approx(expected["img_accuracy"], **EXACT)
    assert score.summary.metrics["total_accuracy"] == pytest.approx(expected["accuracy"], **EXACT)
    image, total = score.summary.tallies["image"], score.summary.tallies["total"]
    assert (image["rows"], image["right"]) == (expected["img_total"], expected["img_correct"])
    assert (total["rows"], total["right"]) == (expected["total"], expected["correct"])


@BOTH_MODES
def test_seed(official):
    score, expected = load_case("seed_bench/real_gpt4v", "seed", official)
    for part, name in (("all", "total"), ("image", "image"), ("video", "video")):
        wanted = expected["exact_counts"][part]
        assert score.summary.tallies[name] == {"rows": wanted["n"], "right": wanted["correct"]}
        assert score.summary.metrics[name] == pytest.approx(wanted["accuracy"], **EXACT)
    for kind, printed in expected["official"]["printed"].items():
        if kind not in ("Total", "image", "video"):
            assert f"{score.summary.metrics[kind]:.2f}" == f"{printed:.2f}"


@pytest.mark.parametrize("name", ["MSVD_Zero_Shot_QA/real56_clean_judge", "TGIF_Zero_Shot_QA/real120_clean_judge"])
def test_video_files_pair_and_score(name):
    score, _ = load_case(name, name[:4].lower())
    assert 0 < score.summary.metrics["exact"] <= score.summary.metrics["contains"] < 100


@pytest.mark.parametrize("name", ["TGIF_Zero_Shot_QA/hand_picked", "MSRVTT_Zero_Shot_QA/hand_picked"])
def test_video_questions_with_repeated_ids_load(name):
    folder = case(name)
    benchmark = get(name.split("_")[0])
    samples = benchmark.load(folder)
    predictions = [Prediction(sample.answer, row, sample.id, sample.question) for row, sample in enumerate(samples)]
    score = benchmark.score(folder, predictions)
    assert (score.headline, score.complete, score.counts.duplicate) == (100, True, 0)


def prompt_files(folder: Path, row: dict[str, Any], benchmark: str) -> None:
    """The smallest official files that hold one question row."""
    question, name = row.get("text", "").split("\n")[0], str(row.get("question_id"))
    if benchmark == "scienceqa":
        document(folder / "llava_test_CQM-A.json", [row])
        image = "image.png" if "image" in row else None
        document(folder / "problems.json", {row["id"]: {"choices": ["x", "y"], "answer": 0, "image": image}})
        document(folder / "pid_splits.json", {"test": [row["id"]]})
    elif benchmark == "pope":
        lines(folder / "llava_pope_test.jsonl", [row])
        label = {"question_id": 1, "image": row["image"], "text": question, "label": "yes"}
        lines(folder / "coco" / f"coco_pope_{row['category']}.json", [label])
    elif benchmark == "gqa":
        lines(folder / "llava_gqa_testdev_balanced.jsonl", [row])
        document(folder / "data" / "testdev_balanced_questions.json", {name: {"question": question, "answer": "x"}})
    elif benchmark == "textvqa":
        lines(folder / "llava_textvqa_val_v051_ocr.jsonl", [row])
        gold = {"question": question, "image_id": name, "answers": ["x"] * 10}
        document(folder / "TextVQA_0.5.1_val.json", {"data": [gold]})
    elif benchmark == "MME":
        lines(folder / "llava_mme.jsonl", [row])
        stem = name.split("/")[-1].split(".")[0]
        gold = {"category": row["category"], "id": stem, "question": question, "answer": "Yes"}
        lines(folder / "gt.jsonl", [gold])
    elif benchmark == "seed_bench":
        lines(folder / "llava-seed-bench.jsonl", [row])
        gold = {"question_id": name, "question_type_id": 5, "data_type": "image", "answer": "A"}
        document(folder / "SEED-Bench.json", {"questions": [gold], "question_type": {row["category"]: 5}})
    else:
        document(folder / "test_q.json", [{"question_id": "0", "video_name": "v", **row}])
        document(folder / "test_a.json", [{"question_id": "0", "answer": "x"}])


def test_prompts_are_the_originals_character_by_character(tmp_path):
    for number, wanted in enumerate(
        json.loads((case("prompts") / "expected.json").read_text(encoding="utf-8"))["cases"]
    ):
        folder = tmp_path / str(number)
        prompt_files(folder, wanted["input_row"], wanted["benchmark"])
        benchmark = get(wanted["benchmark"])
        (sample,) = benchmark.load(folder)
        assert (benchmark.prompt_format, benchmark.max_new_tokens) == (wanted["conv_mode"], wanted["max_new_tokens"])
        assert sample.answer is not None
        if sample.video:
            placeholders = "<image>" * wanted["n_image_placeholders"]
            assert wanted["prompt"].endswith(f" USER: {placeholders}\n{sample.question} ASSISTANT:")
            continue
        assert len(sample.images) == wanted["n_image_placeholders"]
        assert vicuna_v1(with_picture(sample.question) if sample.images else sample.question) == wanted["prompt"]
        if "saved_prompt_field" in wanted:
            assert benchmark.record(sample, "")["prompt"] == wanted["saved_prompt_field"]
