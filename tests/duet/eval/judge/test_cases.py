"""A limited judgement is about the questions that a limited evaluation answers."""

from __future__ import annotations

from pathlib import Path

from duet.eval.benchmarks import get
from duet.eval.judge.cases import read_cases
from tests.eval_files import document, lines

NAMES = [f"v{number}" for number in range(30)]


def test_limit_and_seed_draw_what_duet_eval_draws(tmp_path: Path) -> None:
    asked = [{"question_id": name, "video_name": name, "question": f"who is {name}?"} for name in NAMES]
    document(tmp_path / "test_q.json", asked)
    document(tmp_path / "test_a.json", [{"question_id": name, "answer": "man", "type": 1} for name in NAMES])
    said = [{"id": row["question_id"], "question": row["question"], "answer": "man", "pred": "a man"} for row in asked]
    predictions = lines(tmp_path / "merge.jsonl", said)
    for seed in (0, 7):
        samples, subset = get("msvd").load_subset(tmp_path, 8, seed)
        cases = read_cases("msvd", tmp_path, predictions, "judge", limit=8, seed=seed)
        assert [case.sample.key for case in cases.rows] == [sample.key for sample in samples]
        assert subset is not None and (cases.skipped, len(cases.rows)) == (22, 8)
    whole = read_cases("msvd", tmp_path, predictions, "judge")
    assert (whole.skipped, len(whole.rows)) == (0, 30)
