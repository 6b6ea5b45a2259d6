"""ScienceQA: 4241 multiple-choice test questions, 2017 of them with a picture (arXiv 2209.09513).

    llava_test_CQM-A.json  [{"id": "11", "image": "11/image.png", "conversations": [{"from": "human", "value":
                            "<image>\\nWhat is the name of the colony shown?\\nA. Maryland\\nB. New Hampshire"},
                            {"from": "gpt", "value": "B"}]}, ...]            no "image" where there is none
    problems.json          {"11": {"question": ..., "choices": [...], "answer": 1, "image": "image.png" or null, ...}}
    pid_splits.json        {"test": ["11", ...], ...}
    images/test/11/image.png

The prompt gets the letter suffix (`--single-pred-prompt`). An answer is a letter if it is one of A-E, starts with
"A. ", or holds exactly one "The answer is A" followed by any character; else it failed. Headline: accuracy over the
questions with a picture, in percent ("SQA-I"); also accuracy over the whole split.

LLaVA's `eval_science_qa.py` (c121f04) takes the picture questions from the saved prompts, so unanswered ones drop out
of the denominator. Here they are those of `problems.json`, and unanswered ones count as wrong.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from duet.eval.reading import name_of, need, optional_text, path_of, read_json, rows_of, shown, text_of, texts_of
from duet.eval.scoring.benchmark import FileBenchmark
from duet.eval.scoring.percentages import accuracies
from duet.eval.scoring.question_files import joined
from duet.eval.types import Decided, InputError, OfficialStop, Prediction, Sample, Summary
from duet.llava.prompts import IMAGE, OPTION_LETTER, with_choices, with_picture, with_suffix

LETTERS = "ABCDE"
SENTENCE = re.compile(r"The answer is ([A-Z]).")


def parse(text: str) -> str:
    """A letter or `FAILED`."""
    if len(text) == 1 and text in LETTERS:
        return text
    if text[:1] and text[0] in LETTERS and text[1:3] == ". ":
        return text[0]
    found = SENTENCE.findall(text)
    return found[0] if len(found) == 1 else "FAILED"


class ScienceQa(FileBenchmark):
    """Reader and scorer."""

    name = "scienceqa"
    folder = "scienceqa"
    markers = ("problems.json", "llava_test_CQM-A.json")
    questions = "llava_test_CQM-A.json"
    pictures = "images/test"
    rule = "it leaves pictures without answer out of the count"
    max_new_tokens = 1024
    headline_group = "image"

    def load(self, root: Path) -> list[Sample]:
        """All questions of LLaVA's file, text-only ones without picture."""
        folder = self.find(root)
        path, gold = folder / self.questions, {sample.id: sample for sample in self.gold(folder)}
        samples = []
        for count, row in enumerate(read_json(path, list)):
            name = name_of(row, "id", f"{path}: row {count}")
            where = f"{path}: row {name}"
            turns = rows_of(row, "conversations", where)
            if not turns:
                raise InputError(f"{where}: conversations is empty, expected a question and its answer")
            question = text_of(turns[0], "value", where).replace(IMAGE, "").strip()
            pictured = row.get("image") is not None
            images = (str(folder / self.pictures / path_of(row, "image", where)),) if pictured else ()
            sample = Sample(name, f"{count}:{name}", with_suffix(question, OPTION_LETTER), images)
            samples.append(joined(sample, gold.get(name)))
        return samples

    def record(self, sample: Sample, text: str) -> dict[str, Any]:
        """A line of LLaVA's answer file; the scorer looks for the placeholder in the prompt."""
        prompt = with_picture(sample.question) if sample.images else sample.question
        return {"question_id": sample.id, "prompt": prompt, "text": text}

    def gold(self, folder: Path) -> list[Sample]:
        """The test split."""
        path, splits = folder / "problems.json", folder / "pid_splits.json"
        problems, samples = read_json(path), []
        for count, name in enumerate(texts_of(read_json(splits), "test", splits)):
            row = need(problems, name, path)
            where = f"{path}: problem {name}"
            choices, answer = texts_of(row, "choices", where), need(row, "answer", where)
            known = isinstance(answer, int) and not isinstance(answer, bool)
            if not known or not 0 <= answer < min(len(choices), len(LETTERS)):
                raise InputError(f"{where}: answer {shown(answer)} is not one of its {len(choices)} choices")
            asked = text_of(row, "question", where) if "question" in row else ""  # scoring can do without
            hint = optional_text(row, "hint", where)
            prompt = with_suffix(with_choices(asked, choices, hint), OPTION_LETTER)
            sample = Sample(name, f"{count}:{name}", prompt, answer=LETTERS[answer])
            group = "image" if optional_text(row, "image", where) else "text"
            samples.append(replace(sample, names=(("id", name), ("prompt", prompt)), group=group))
        return samples

    def names(self, prediction: Prediction) -> Sequence[Hashable]:
        """The id; lmms-eval has none, so there the prompt."""
        return [("prompt", prediction.prompt) if prediction.id is None else ("id", prediction.id)]

    def decide(self, sample: Sample, text: str) -> tuple[str, float]:
        """The letter against the right one."""
        parsed = parse(text)
        return parsed, float(parsed == sample.answer)

    def official(self, folder: Path, predictions: Sequence[Prediction], decided: Sequence[Decided]) -> list[Decided]:
        """A question belongs to the picture part if the saved prompt says so, so unanswered ones do not."""
        shown = {row.sample.id: IMAGE in (row.prediction.prompt or "") for row in decided if row.prediction is not None}
        if not any(shown.values()):
            raise OfficialStop(f"division by zero: no saved prompt holds {IMAGE}")
        return [replace(row, group="image" if shown.get(row.sample.id) else "text") for row in decided]

    def sums(self, decided: Sequence[Decided]) -> dict[str, float]:
        """Of the questions with a picture."""
        return super().sums([row for row in decided if row.group == "image"])

    def summarise(self, decided: Sequence[Decided]) -> Summary:
        """Accuracy of the picture questions and of all."""
        parts = {"image": [row for row in decided if row.group == "image"]}
        if len(parts["image"]) < len(decided):
            parts["total"] = list(decided)
        values, tallies = accuracies(parts)
        for name, rows in parts.items():
            tallies[name]["failed"] = sum(row.parsed == "FAILED" for row in rows)
        return Summary("image_accuracy", {f"{name}_accuracy": value for name, value in values.items()}, tallies)
