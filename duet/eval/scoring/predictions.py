"""Reads anybody's prediction file: LLaVA answers or `merge.jsonl`, Video-LLaVA answers, lmms-eval samples.

    {"question_id": 1, "prompt": "Is there a dog in the image?\\nAnswer ...", "text": "Yes", ...}        LLaVA
    {"id": "v_jf_0", "question": "who is there?", "answer": "man", "pred": "A man."}                      Video-LLaVA
    {"doc_id": 0, "input": "Is there ...", "filtered_resps": ["Yes"], "pope_f1_score": {"question_id": 1}}  lmms-eval

A JSON array of such objects (GQA's `[{"questionId", "prediction"}]`) is read as well, and so is the older lmms-eval
file with its samples under `logs`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from duet.eval.reading import need, read_json, read_lines, read_text
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
        return read_lines(path)
    content = read_json(path, object)
    rows = need(content, "logs", path) if isinstance(content, dict) else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: expected an array of objects")
    return enumerate(rows, start=1)


def _prediction(row: dict[str, Any], line: int, where: str) -> Prediction:
    if "doc_id" in row:
        return _lmms(row, line, where)
    name = _first(row, IDS, where)
    text = _first(row, TEXTS, where)
    if not isinstance(text, str):
        raise InputError(f"{where}: the answer must be a text, not {text!r}")
    prompt = next((row[field] for field in PROMPTS if isinstance(row.get(field), str)), None)
    return Prediction(text, line, str(name), prompt)


def _lmms(row: dict[str, Any], line: int, where: str) -> Prediction:
    """A sample of lmms-eval: the id sits in `doc` or in the metric's entry, if at all; the answer may be nested."""
    text = row.get("filtered_resps", row.get("resps"))
    while isinstance(text, list) and text:
        text = text[0]
    if not isinstance(text, str):
        raise InputError(f"{where}: field 'filtered_resps' must hold the answer's text")
    if not isinstance(row["doc_id"], int):
        raise InputError(f"{where}: doc_id {row['doc_id']!r} is no number")
    shown = row["doc"] if isinstance(row.get("doc"), dict) else {}
    entries = [shown, *(value for value in row.values() if isinstance(value, dict))]
    names = (entry[field] for entry in entries for field in IDS if entry.get(field) is not None)
    prompt = row.get("input", _context(row.get("arguments")))
    name, category = next(names, None), shown.get("category")
    return Prediction(
        text,
        line,
        None if name is None else str(name),
        prompt if isinstance(prompt, str) else None,
        row["doc_id"],
        None if category is None else str(category),
    )


def _context(arguments: Any) -> Any:
    """The prompt inside the `arguments` of older lmms-eval files: nested lists whose first entry is the text."""
    while isinstance(arguments, list) and arguments:
        arguments = arguments[0]
    return arguments


def _first(row: dict[str, Any], names: tuple[str, ...], where: str) -> Any:
    for name in names:
        if row.get(name) is not None:
            return row[name]
    return need({key: value for key, value in row.items() if key not in names}, names[0], where)
