"""SEED-Bench, picture part: 14233 multiple-choice questions of nine types (arXiv 2307.16125).

    llava-seed-bench.jsonl  {"question_id": 101669, "image": "SEED-Bench-image/1454426_2591111986", "category":
                             "Instances Counting", "text": "How many towels are in the image?\\nA. One\\nB. Two\\nC.
                             Three\\nD. Four\\nAnswer with the option's letter from ..."}        videos: id "v123"
    SEED-Bench.json         {"questions": [{"question_id": "101669", "question_type_id": 5, "data_type": "image",
                             "answer": "A", "question": ..., "choice_a": ..., "choice_b": ..., ...}, ...],
                             "question_type": {"Scene Understanding": 1, ...}}
    SEED-Bench-image/1454426_2591111986

The raw text has to equal the letter. Headline: right picture answers / picture questions, in percent (over rows, not
the mean of types); video questions are also scored if the file answers any.

LLaVA's `convert_seed_for_submission.py` (c121f04) keeps one answer per id, though id 49914 has two questions, and fails
if a type has no right answer. Here rows are distinguished by their question.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path

from duet.eval.reading import name_of, need, read_json, rows_of, shown, text_of
from duet.eval.scoring.benchmark import FileBenchmark
from duet.eval.scoring.percentages import accuracies
from duet.eval.types import Decided, InputError, OfficialStop, Prediction, Sample, Summary
from duet.llava.prompts import OPTION_LETTER, with_choices, with_suffix


def number(name: object) -> str:
    """The id as text: 101669 and "101669" are the same, "v12" stays."""
    text = str(name)
    return str(int(text)) if text.isdecimal() else text


class SeedBench(FileBenchmark):
    """Reader and scorer."""

    name = "seed"
    folder = "seed_bench"
    markers = ("SEED-Bench.json", "llava-seed-bench.jsonl")
    questions = "llava-seed-bench.jsonl"
    pictures = "."
    rule = "it keeps one answer per id"
    headline_group = "image"

    def load(self, root: Path) -> list[Sample]:
        """The picture questions; those on video frames have ids that start with v."""
        return [sample for sample in super().load(root) if not sample.id.startswith("v")]

    def gold(self, folder: Path) -> list[Sample]:
        """The annotation, pictures and videos."""
        path = folder / "SEED-Bench.json"
        content, samples = read_json(path), []
        kinds = need(content, "question_type", path)
        if not isinstance(kinds, dict):
            raise InputError(f"{path}: question_type is {shown(kinds)}, expected an object of names and numbers")
        types = {name_of(kinds, name, f"{path}: question_type"): name for name in kinds}
        for count, row in enumerate(rows_of(content, "questions", path)):
            where = f"{path}: questions[{count}]"
            name = number(name_of(row, "question_id", where))
            kind, part = name_of(row, "question_type_id", where), need(row, "data_type", where)
            if part not in ("image", "video"):
                raise InputError(f"{where}: data_type is {shown(part)}, expected image or video")
            fields = [f"choice_{letter}" for letter in "abcd" if f"choice_{letter}" in row]
            choices = [text_of(row, field, where) for field in fields]
            question = text_of(row, "question", where) if "question" in row else ""  # scoring can do without
            prompt = with_suffix(with_choices(question, choices), OPTION_LETTER)
            names = (("id", name, prompt), ("id", name))
            meta = {"type": types.get(kind, kind)}
            answer = need(row, "answer", where)
            if answer not in ("A", "B", "C", "D"):
                raise InputError(f"{where}: answer is {shown(answer)}, expected a letter from A to D")
            samples.append(Sample(name, f"{count}:{name}", prompt, answer=answer, names=names, group=part, meta=meta))
        return samples

    def category(self, sample: Sample) -> str:
        """The question's type."""
        return str(sample.meta.get("type", ""))

    def names(self, prediction: Prediction) -> Sequence[Hashable]:
        """Id and prompt if the prompt is the official one; else the id."""
        name = number(prediction.id)
        return [("id", name, prediction.prompt), ("id", name)]

    def decide(self, sample: Sample, text: str) -> tuple[str, float]:
        """The text itself against the letter."""
        return text, float(text == sample.answer)

    def official(self, folder: Path, predictions: Sequence[Prediction], decided: Sequence[Decided]) -> list[Decided]:
        """The last answer of an id is the answer of all its questions."""
        last = {number(line.id): line for line in predictions}
        rows = []
        for row in decided:
            line, sample = last.get(row.sample.id), row.sample
            parsed, value = (None, 0.0) if line is None else self.decide(sample, line.text)
            rows.append(Decided(sample, line, parsed, value, sample.group))
        for kind in dict.fromkeys(row.sample.meta["type"] for row in rows):
            mine = [row for row in rows if row.sample.meta["type"] == kind]
            if not any(row.value for row in mine) and all(row.prediction is not None for row in mine):
                raise OfficialStop(f"type {kind} has no right answer")
        return rows

    def sums(self, decided: Sequence[Decided]) -> dict[str, float]:
        """Of the questions about pictures."""
        return super().sums([row for row in decided if row.group == "image"])

    def summarise(self, decided: Sequence[Decided]) -> Summary:
        """Accuracy by part and by type; the total only if videos are scored too."""
        parts = {part: [row for row in decided if row.group == part] for part in ("image", "video")}
        parts = {part: rows for part, rows in parts.items() if rows or part == "image"}
        if len(parts) > 1:
            parts["total"] = list(decided)
        for row in decided:
            parts.setdefault(row.sample.meta["type"], []).append(row)
        return Summary("image", *accuracies(parts))
