"""A net for broken files of an evaluation: every field of every file with values that it cannot have.

Whatever a user's file contains, only a `UserError` may result: one line, with the name of the file or its folder.
Where a field is needed (`NEEDED`) it must come; where a reader can do without, it may.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from duet.errors import UserError
from duet.eval.benchmarks import BENCHMARKS, get
from duet.eval.running.decisions import read_decisions
from duet.eval.scoring.predictions import read_predictions
from duet.report.experiment import read_grid, read_results
from duet.report.runs import find_runs
from duet.report.training import find_trainings
from tests.eval_files import document, lines
from tests.result_files import write_run
from tests.small_world import write_questions

FOLDERS = {"mme": "MME", "seed": "seed_bench"}
VIDEO = ("tgif", "msvd", "msrvtt")
DEEP = json.loads("[" * 900 + "]" * 900)
#: Right for no field that is needed.
WRONG: dict[str, Any] = {
    "null": None,
    "fraction": 1.5,
    "truth": True,
    "empty": "",
    "blank": " \n",
    "list": [],
    "lists": [["x"], 3],
    "object": {},
    "objects": {"a": {"b": 1}},
    "huge text": "x" * 300_000,
    "huge number": 10**400,
    "infinite": float("inf"),
    "deep": DEEP,
    "half a character": "\ud83d",
}
#: Fields that a scorer or a run cannot do without, by benchmark and file.
QUESTIONS = ("question_id", "image", "text")
NEEDED: dict[str, dict[str, tuple[str, ...]]] = {
    "pope": {
        "llava_pope_test.jsonl": QUESTIONS,
        "coco/coco_pope_random.json": ("question_id", "image", "text", "label"),
    },
    "gqa": {
        "llava_gqa_testdev_balanced.jsonl": QUESTIONS,
        "data/testdev_balanced_questions.json": ("question", "answer"),
    },
    "textvqa": {
        "llava_textvqa_val_v051_ocr.jsonl": QUESTIONS,
        "TextVQA_0.5.1_val.json": ("image_id", "question", "answers"),
    },
    "mme": {"llava_mme.jsonl": QUESTIONS},
    "scienceqa": {
        "llava_test_CQM-A.json": ("id", "conversations"),
        "problems.json": ("choices", "answer", "question"),
    },
    "seed": {
        "llava-seed-bench.jsonl": QUESTIONS,
        "SEED-Bench.json": ("question_id", "question_type_id", "data_type", "answer", "choice_a", "question"),
    },
    **{
        task: {"test_q.json": ("question_id", "question", "video_name"), "test_a.json": ("question_id", "answer")}
        for task in VIDEO
    },
}
#: Scoring does without; some copies of the annotations leave them out.
SPARE = ("question", "choice_a")
FILES = [(task, file) for task, files in NEEDED.items() for file in files]


@cache
def benchmark_folder(task: str) -> Path:
    """A small benchmark in its official files."""
    root = Path(mkdtemp(prefix="broken-"))
    if task not in VIDEO:
        return write_questions(root, FOLDERS.get(task, task), count=6) / FOLDERS.get(task, task)
    names = [f"v{n}" for n in range(3)]
    document(root / "test_q.json", [{"question_id": n, "video_name": n, "question": "who runs?"} for n in names])
    document(root / "test_a.json", [{"question_id": n, "answer": "man", "type": 1} for n in names])
    return root


def used(task: str, folder: Path) -> None:
    """All that reads a benchmark's files: an evaluation's questions, and scoring with and without the official rule."""
    benchmark = get(task)
    samples, _ = benchmark.load_subset(folder, 4)
    rows = [{**benchmark.record(sample, "Yes"), "question_id": sample.id} for sample in samples]
    path = lines(folder.parent / f"{folder.name}.predictions.jsonl", rows)
    benchmark.score(folder, read_predictions(path))


def rows_in(content: Any) -> tuple[Any, list[Any]]:
    """The objects of a file, of whatever layout."""
    if isinstance(content, list):
        return content, content
    if isinstance(content.get("data", content.get("questions")), list):
        return content, content.get("data", content.get("questions"))
    return content, list(content.values())


def read(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    by_line = path.suffix == ".jsonl" or (text.startswith("{") and "}\n{" in text)
    return [json.loads(line) for line in text.splitlines()] if by_line else json.loads(text)


def write(path: Path, content: Any, by_line: bool) -> None:
    text = "".join(json.dumps(row) + "\n" for row in content) if by_line else json.dumps(content)
    path.write_text(text, encoding="utf-8")


def spoilt(content: Any, place: int) -> Iterator[tuple[str, str, Any]]:
    """Copies of a file in which one field of one row is spoilt: field, kind of fault, content."""
    for field in [*rows_in(content)[1][place], None]:
        for name, value in {**WRONG, "gone": None}.items():
            fresh = copy.deepcopy(content)
            rows = rows_in(fresh)[1]
            if name == "gone" and field is not None:
                del rows[place][field]
            elif field is not None:
                rows[place][field] = value
            elif isinstance(rows_in(fresh)[0], list):
                fresh[place] = value
            else:
                continue
            yield str(field), name, fresh


def refused(call: Callable[[], Any], path: Path) -> bool:
    """Whether it ends in a UserError, which must be one line with the file's name; anything else fails the test."""
    try:
        call()
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 900, str(error)[:2000]
        assert any(str(place) in str(error) for place in (path, path.parent, path.parents[1])), str(error)
        return True
    return False


@pytest.mark.parametrize(("task", "file"), FILES, ids=lambda value: Path(str(value)).name)
def test_every_field_of_a_benchmark_with_every_wrong_value(task: str, file: str) -> None:
    folder = benchmark_folder(task)
    path = folder / file
    whole = path.read_text(encoding="utf-8")
    content = read(path)
    by_line = path.suffix == ".jsonl" or (isinstance(content, list) and not whole.startswith("["))
    accepted = []
    try:
        used(task, folder)
        for field, fault, broken in spoilt(content, 1):
            write(path, broken, by_line)
            spare = fault == "gone" and field in SPARE
            if not refused(lambda: used(task, folder), path) and field in NEEDED[task][file] and not spare:
                accepted.append((field, fault))
    finally:
        path.write_text(whole, encoding="utf-8")
    assert not accepted, "taken as they are"


@pytest.mark.parametrize(("task", "file"), FILES, ids=lambda value: Path(str(value)).name)
def test_a_benchmark_file_that_is_none(task: str, file: str) -> None:
    folder = benchmark_folder(task)
    path = folder / file
    whole = path.read_bytes()
    broken = [
        b"",
        b"\xff\xfe\x00",
        b"null",
        b"[",
        b"[1]",
        b'{"a": ',
        b"[" * 20_000,
        b'{"a": ' + b"9" * 6000 + b"}",
        whole[:90],
    ]
    try:
        for content in broken:
            path.write_bytes(content)
            assert refused(lambda: used(task, folder), path), content[:20]
        path.unlink()
        path.mkdir()
        assert refused(lambda: used(task, folder), path)
        path.rmdir()
        assert refused(lambda: used(task, folder), path)
    finally:
        path.write_bytes(whole)


MME_LINES = ["Is it?", "Is it?\tMaybe", "Is it?\tYes\tNo", "\tYes", "Is it?\t", "x" * 300_000, "\ufeff\tNo\t"]


@pytest.mark.parametrize("line", MME_LINES, ids=range(len(MME_LINES)))
def test_a_line_of_the_mme_release(line: str) -> None:
    folder = benchmark_folder("mme")
    path = next((folder / "MME_Benchmark_release_version").rglob("*.txt"))
    whole = path.read_text(encoding="utf-8")
    try:
        path.write_text(f"{whole.splitlines()[0]}\n{line}\n", encoding="utf-8")
        assert refused(lambda: used("mme", folder), path.parent.parent / "MME_Benchmark_release_version")
    finally:
        path.write_text(whole, encoding="utf-8")


PREDICTIONS = {
    "llava": {"question_id": 1, "prompt": "Is it?", "text": "Yes", "metadata": {}},
    "video": {"id": "v1", "question": "who?", "answer": "man", "pred": "A man."},
    "lmms": {
        "doc_id": 0,
        "input": "Is it?",
        "filtered_resps": ["Yes"],
        "doc": {"question_id": "1", "category": "random"},
        "arguments": [["Is it?"]],
    },
}


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("layout", ["lines", "array"])
def test_every_field_of_a_prediction_with_every_wrong_value(kind: str, layout: str, tmp_path: Path) -> None:
    path = tmp_path / ("p.jsonl" if layout == "lines" else "p.json")
    needed = {"llava": ("question_id", "text"), "video": ("id", "pred"), "lmms": ("doc_id", "filtered_resps")}[kind]
    accepted = []
    for field, fault, broken in spoilt([PREDICTIONS[kind], PREDICTIONS[kind]], 1):
        write(path, broken, layout == "lines")
        if not refused(lambda: read_predictions(path), path) and field in needed:
            accepted.append((field, fault))
    # an answer may be empty, and may end in half an emoji
    said = ("text", "pred", "filtered_resps")
    fine = {(field, fault) for field in said for fault in ("empty", "blank", "half a character")}
    assert not set(accepted) - fine - {("filtered_resps", "lists")}


@pytest.fixture
def result(tmp_path: Path) -> Path:
    return write_run(tmp_path, "tgif", 50.0, "duet_c", "llava15_128") / "metrics.json"


def nested(content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Copies with one field, at any depth, spoilt."""

    def places(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        for name, inner in value.items():
            yield (*path, name)
            if isinstance(inner, dict):
                yield from places(inner, (*path, name))

    for place in places(content, ()):
        for name, value in {**WRONG, "gone": None}.items():
            fresh = copy.deepcopy(content)
            owner = fresh
            for step in place[:-1]:
                owner = owner[step]
            if name == "gone":
                del owner[place[-1]]
            else:
                owner[place[-1]] = value
            yield f"{'.'.join(place)} {name}", fresh


def test_every_field_of_a_result_with_every_wrong_value(result: Path, tmp_path: Path) -> None:
    content = json.loads(result.read_text())
    for _, broken in nested(content):
        result.write_text(json.dumps(broken))
        refused(lambda: find_runs(tmp_path), result)
    for text in (b"", b"[]", b"\xff\xfe", b"[" * 20_000):
        result.write_bytes(text)
        assert refused(lambda: find_runs(tmp_path), result)


def test_every_field_of_a_judges_result_with_every_wrong_value(result: Path, tmp_path: Path) -> None:
    judged = {"counts": {"judged": 10, "rows": 10}, "metrics": {"accuracy": 70.0}, "headline": {"judge": "gpt"}}
    path = result.with_name("judge.json")
    path.write_text(json.dumps(judged))
    assert [run.value for run in find_runs(tmp_path)] == [70.0]
    for _, broken in nested(judged):
        path.write_text(json.dumps(broken))
        refused(lambda: find_runs(tmp_path), path)


DECISION = {
    "key": "0:7",
    "question": "Is it?",
    "parsed": "yes",
    "gold": "no",
    "correct": False,
    "score": 0.0,
    "id": "7",
    "group": "random",
    "media": ["a.jpg"],
    "failed": None,
}


def test_every_field_of_a_decision_with_every_wrong_value(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", [DECISION])
    assert read_decisions(tmp_path)[0].sample.id == "7"
    for _, _, broken in spoilt([DECISION, DECISION], 1):
        write(path, broken, True)
        refused(lambda: read_decisions(tmp_path), path)


GRID: dict[str, Any] = {
    "models": {"llava15": "llava-hf/llava-1.5-7b-hf"},
    "methods": ["visionzip"],
    "budgets": {"few": {"average": 128}},
    "tasks": ["pope"],
    "data": "data",
    "output": "out",
    "batch_size": 4,
    "limit": 5,
    "seed": 0,
    "max_new_tokens": 3,
    "switches": {"positions": "keep"},
    "loading": {"device": "cpu"},
}


def test_every_field_of_a_grid_with_every_wrong_value(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    for _, broken in nested(GRID):
        path.write_text(json.dumps(broken))  # JSON is YAML
        refused(lambda: read_results(read_grid(tmp_path)), path)


def test_every_field_of_a_training_run_with_every_wrong_value(tmp_path: Path) -> None:
    recipe, log = tmp_path / "recipe.yaml", tmp_path / "metrics.jsonl"
    contents = {
        recipe: {"compression": {"method": "duet", "budget": "llava15_128"}},
        log: {"step": 1, "step_seconds": 1.0, "visual_tokens": 128.0},
    }
    for path, content in contents.items():
        for other, whole in contents.items():
            other.write_text(json.dumps(whole))
        assert len(find_trainings(tmp_path)) == 1
        for _, broken in nested(content):
            path.write_text(json.dumps(broken))
            refused(lambda: find_trainings(tmp_path), path)
        for text in (b"", b"[]", b"{", b"\xff\xfe", b"[" * 20_000):
            path.write_bytes(text)
            refused(lambda: find_trainings(tmp_path), path)


def test_the_net_knows_every_benchmark() -> None:
    assert set(NEEDED) == set(BENCHMARKS)
