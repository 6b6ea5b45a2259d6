"""Question files of LLaVA's evaluation data as samples, and the join with a benchmark's annotation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from duet.eval.reading import need, read_lines
from duet.eval.types import Sample


def read_questions(path: Path, pictures: Path) -> Iterator[Sample]:
    """The rows `{question_id, image, text, category}` of a question file; `pictures` is the folder of the images."""
    for count, (number, row) in enumerate(read_lines(path)):
        where = f"{path}:{number}"
        name = str(need(row, "question_id", where))
        image = str(pictures / need(row, "image", where))
        group = str(row.get("category", ""))
        yield Sample(name, f"{count}:{name}", need(row, "text", where), (image,), group=group)


def joined(question: Sample, gold: Sample | None) -> Sample:
    """The question as asked, with answer, names, group and further fields of its row in the annotation."""
    if gold is None:
        return question
    return replace(question, answer=gold.answer, names=gold.names, group=gold.group, meta=gold.meta)
