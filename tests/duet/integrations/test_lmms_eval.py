"""`--model duet` of lmms-eval. Tests marked `lmms_eval` run in an environment that has it (`scripts/lmms_eval.sh`)."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from duet.eval.asking.task import media
from duet.eval.benchmarks import get
from tests.small_world import write_questions

ROOT = Path(__file__).parents[3]
MODEL = ROOT / "playground" / "mini" / "checkpoints" / "llava-mini"
COUNT, BATCH, BUDGET = 12, 4, 22

#: A task over a JSON file; `{0}` its folder, `{1}` the longest answer.
TASK = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/rows.json}}}}
test_split: test
output_type: {kind}
doc_to_visual: !function reading.visual
doc_to_text: !function reading.text
doc_to_target: answer
{choices}
{generation}
{results}
metadata: {{version: 0}}
"""
READING = """from PIL import Image


def visual(row):
    return [Image.open(row["image"]).convert("RGB")]


def text(row, lmms_eval_specific_kwargs=None):
    return row["question"]


def choices(row):
    return ["Yes", "No"]


def results(row, answers):
    return {"right": float(answers[0].strip().lower() == row["answer"].lower())}
"""
SCORED = """process_results: !function reading.results
metric_list: [{metric: right, aggregation: mean, higher_is_better: true}]"""


def test_the_entry_point_is_declared_and_its_classes_exist():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    group = '[project.entry-points."lmms_eval.models"]'
    assert f'{group}\nduet = "duet.integrations:lmms_eval_models"' in text
    from duet import integrations

    source = Path(integrations.__file__).read_text(encoding="utf-8")
    module = ast.parse((ROOT / "duet" / "integrations" / "lmms_eval.py").read_text(encoding="utf-8"))
    classes = {node.name for node in module.body if isinstance(node, ast.ClassDef)}
    paths = re.findall(r'"duet\.integrations\.lmms_eval\.(\w+)"', source)
    assert len(paths) == 2 and set(paths) <= classes


@cache
def questions(root: Path) -> list[Any]:
    write_questions(root, "pope", count=COUNT)
    return get("pope").load(root / "pope")


def write_task(root: Path, name: str, kind: str, longest: int) -> Path:
    """Write a task's folder, and the rows of the small world's questions."""
    folder = root / name
    folder.mkdir()
    rows = [
        {"image": media(q)[0], "question": q.question, "answer": str(q.answer).capitalize()} for q in questions(root)
    ]
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    (folder / "reading.py").write_text(READING, encoding="utf-8")
    generates = kind == "generate_until"
    text = TASK.format(
        name=name,
        folder=folder,
        kind=kind,
        choices="" if generates else "doc_to_choice: !function reading.choices",
        generation=f"generation_kwargs: {{max_new_tokens: {longest}, temperature: 0, do_sample: false}}"
        if generates
        else "",
        results=SCORED if generates else "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]",
    )
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def run_lmms_eval(folder: Path, output: Path, arguments: str, *options: str) -> tuple[dict, list[dict]]:
    """Results and samples. The tool's exit code says nothing: it is 0 after a failure, too."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    words = ["--model", "duet", "--model_args", f"pretrained={MODEL},{arguments}", "--tasks", folder.name]
    words += ["--include_path", str(folder), "--batch_size", str(BATCH), "--device", "cpu", "--log_samples"]
    run = subprocess.run(
        [sys.executable, "-m", "lmms_eval", *words, "--output_path", str(output), *options],
        env={**environment, "HF_HOME": str(output / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    files = sorted(output.rglob("*_results.json"))
    assert len(files) == 1, run.stdout[-3000:] + run.stderr[-6000:]
    (samples,) = output.rglob("*_samples_*.jsonl")
    lines = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    return json.loads(files[0].read_text(encoding="utf-8")), sorted(lines, key=lambda line: line["doc_id"])


def run_duet_eval(root: Path, output: Path, method: str) -> list[str]:
    """Answers in the order of the questions."""
    words = [sys.executable, "-m", "duet.cli.main", "eval", "--model", str(MODEL), "--tasks", "pope"]
    words += ["--data", str(root), "--method", method, "--batch-size", str(BATCH), "--device", "cpu"]
    words += ["--budget", str(BUDGET)] if method != "none" else []
    subprocess.run([*words, "--output", str(output)], check=True, capture_output=True, cwd=ROOT)
    (predictions,) = output.rglob("predictions.jsonl")
    lines = [json.loads(line) for line in predictions.read_text(encoding="utf-8").splitlines()]
    found = {line["key"]: line["text"] for line in lines}
    return [found[question.key] for question in questions(root)]


@pytest.mark.lmms_eval
def test_the_installed_entry_point_gives_both_classes():
    from lmms_eval.models import MODEL_REGISTRY_V2

    assert "duet" in {entry.name for entry in entry_points(group="lmms_eval.models")}
    chat, simple = (MODEL_REGISTRY_V2.get_model_class("duet", force_simple=simple) for simple in (False, True))
    assert (chat.is_simple, simple.is_simple) == (False, True)


@pytest.mark.lmms_eval
@pytest.mark.parametrize(("method", "options"), [("duet", ()), ("none", ("--force_simple",))])
def test_answers_equal_duet_eval_row_by_row(tmp_path, method, options):
    questions.cache_clear()
    questions(tmp_path)
    longest = get("pope").max_new_tokens
    folder = write_task(tmp_path, "small_pope", "generate_until", longest)
    chosen = f"method={method}" + (f",budget={BUDGET}" if method != "none" else "")
    results, samples = run_lmms_eval(folder, tmp_path / "out", chosen, *options)
    answers = run_duet_eval(tmp_path, tmp_path / "ours", method)
    assert [line["filtered_resps"] for line in samples] == answers
    assert len(set(answers)) > 1
    right = [answer.lower() == str(q.answer).lower() for answer, q in zip(answers, questions(tmp_path), strict=True)]
    (score,) = (value for name, value in results["results"]["small_pope"].items() if name.startswith("right,"))
    assert score == pytest.approx(sum(right) / len(right))


@pytest.mark.lmms_eval
def test_likelihoods_equal_ours_with_stage_2(tmp_path):
    import duet
    from duet.data.pictures import open_picture
    from duet.inference import encode

    questions.cache_clear()
    folder = write_task(tmp_path, "small_choice", "multiple_choice", 1)
    results, samples = run_lmms_eval(folder, tmp_path / "out", f"method=duet,budget={BUDGET}", "--force_simple")
    model, processor = duet.load(str(MODEL), "duet", BUDGET, device="cpu")
    right = 0
    for line, question in zip(samples, questions(tmp_path), strict=True):
        inputs = encode(model, processor, [open_picture(Path(media(question)[0]))], question.question).inputs
        wanted = duet.loglikelihood(model, inputs, [["Yes", "No"]], tokenizer=processor.tokenizer)[0]
        found = [(float(loss), str(greedy) == "True") for loss, greedy in line["filtered_resps"]]
        assert [loss for loss, _ in found] == pytest.approx([-one.total for one in wanted], abs=1e-4)
        assert [greedy for _, greedy in found] == [one.greedy for one in wanted]
        right += (wanted[0].total > wanted[1].total) == (str(question.answer).lower() == "yes")
    (score,) = (value for name, value in results["results"]["small_choice"].items() if name.startswith("acc,"))
    assert score == pytest.approx(right / len(samples)) and score > 0.5


@pytest.mark.lmms_eval
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"methd": "duet"}, "methd"),
        ({"method": "duet", "budget": 22, "batch_size": "auto"}, "batch_size is 'auto'"),
        ({"method": "duet", "budget": 22, "max_batch_size": 8}, "no max_batch_size"),
    ],
)
def test_unknown_model_args_are_refused(given, message):
    from duet.errors import UserError
    from duet.integrations.lmms_eval import DuetChat

    with pytest.raises(UserError, match=message):
        DuetChat(str(MODEL), **given)
