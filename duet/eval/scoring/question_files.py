"""Question files of LLaVA's evaluation data as samples, and the join with a benchmark's annotation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from duet.eval.reading import name_of, optional_text, path_of, read_lines, text_of
from duet.eval.types import Sample


def read_questions(path: Path, pictures: Path) -> Iterator[Sample]:
    """The rows `{question_id, image, text, category}` of a question file; `pictures` is the folder of the images."""
    for count, (number, row) in enumerate(read_lines(path)):
        where = f"{path}:{number}"
        name, text = name_of(row, "question_id", where), text_of(row, "text", where)
        image = str(pictures / path_of(row, "image", where))
        yield Sample(name, f"{count}:{name}", text, (image,), group=optional_text(row, "category", where))


def joined(question: Sample, gold: Sample | None) -> Sample:
    """The question as asked, with answer, names, group and further fields of its row in the annotation."""
    if gold is None:
        return question
    return replace(question, answer=gold.answer, names=gold.names, group=gold.group, meta=gold.meta)
