"""Reads prediction files: LLaVA answers or `merge.jsonl`, Video-LLaVA answers, lmms-eval samples.

    {"question_id": 1, "prompt": "Is there a dog in the image?\\nAnswer ...", "text": "Yes", ...}        LLaVA
    {"id": "v_jf_0", "question": "who is there?", "answer": "man", "pred": "A man."}                      Video-LLaVA
    {"doc_id": 0, "input": "Is there ...", "filtered_resps": ["Yes"], "pope_f1_score": {"question_id": 1}}  lmms-eval

A JSON array of such objects (GQA's `[{"questionId", "prediction"}]`) is also read, and the older lmms-eval
file with its samples under `logs`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from duet.eval.reading import LARGEST_ID, name_of, need, read_json, read_lines, read_text, shown, text_of
from duet.eval.types import InputError, Prediction

IDS = ("question_id", "questionId", "id")
TEXTS = ("text", "pred", "prediction")
PROMPTS = ("prompt", "question")


def read_predictions(path: Path) -> list[Prediction]:
    """All answers in file order, duplicates included.

    Raises:
        InputError: unreadable, a line without id or answer, or no answer at all.
    """
    found = [_prediction(row, number, f"{path}:{number}") for number, row in _rows(path)]
    if not found:
        raise InputError(f"{path}: holds no prediction")
    return found


def _rows(path: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    text = read_text(path)
    whole = text.lstrip()[:1] == "[" or (path.suffix == ".json" and '"logs"' in text)
    if not whole:
        return read_lines(path, halves=True)
    content = read_json(path, object)
    rows = need(content, "logs", path) if isinstance(content, dict) else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: expected an array of objects")
    return enumerate(rows, start=1)


def _prediction(row: dict[str, Any], line: int, where: str) -> Prediction:
    if "doc_id" in row:
        return _lmms(row, line, where)
    name = name_of(row, _first(row, IDS), where)
    text = text_of(row, _first(row, TEXTS), where, blank=True)
    field = next((field for field in PROMPTS if row.get(field) is not None), None)
    return Prediction(text, line, name, None if field is None else text_of(row, field, where, blank=True))


def _lmms(row: dict[str, Any], line: int, where: str) -> Prediction:
    """A sample of lmms-eval: the id is in `doc` or in the metric's entry, if anywhere; the answer may be nested."""
    said = {"filtered_resps": _innermost(row.get("filtered_resps", row.get("resps")))}
    text = text_of(said, "filtered_resps", where, blank=True)
    doc = row["doc_id"]
    if isinstance(doc, bool) or not isinstance(doc, int) or abs(doc) >= LARGEST_ID:
        raise InputError(f"{where}: doc_id is {shown(doc)}, expected a whole number")
    about = row["doc"] if isinstance(row.get("doc"), dict) else {}
    entries = [about, *(value for value in row.values() if isinstance(value, dict))]
    names = (name_of(entry, field, where) for entry in entries for field in IDS if entry.get(field) is not None)
    prompt = row.get("input", _innermost(row.get("arguments")))
    category = None if about.get("category") is None else name_of(about, "category", where)
    return Prediction(text, line, next(names, None), prompt if isinstance(prompt, str) else None, doc, category)


def _innermost(value: Any) -> Any:
    """The text inside nested lists, as older lmms-eval files store answers and prompts."""
    while isinstance(value, list) and value:
        value = value[0]
    return value


def _first(row: dict[str, Any], names: tuple[str, ...]) -> str:
    """The first of the fields that a row has."""
    return next((name for name in names if row.get(name) is not None), names[0])
