"""POPE: does the model see objects that are not there? Yes/no questions on 500 COCO pictures (arXiv 2305.10355).

    llava_pope_test.jsonl            {"question_id": 1, "image": "COCO_val2014_000000310196.jpg", "category":
                                      "adversarial", "text": "Is there a snowboard in the image?\\nAnswer the ..."}
    coco/coco_pope_adversarial.json  {"question_id": 1, "image": ..., "text": "Is there a snowboard in the image?",
                                      "label": "yes"}        one file per category, adversarial, popular, random
    val2014/COCO_val2014_*.jpg

An answer is "no" if a word before the first full stop is exactly No, not or no; otherwise it is "yes".
Headline: mean over the three categories of F1 ("yes" is positive), in percent; LLaVA-1.5's 85.9.

LLaVA's `eval_pope.py` (c121f04) gives the k-th answer the k-th label, so a missing line or a label file from another
release silently shifts all labels. Here labels are found by picture and object; labels that do not cover the
questions are an error. (LLaVA's question file belongs to the labels of AoiDragon/POPE e3e39262: 3000, 3000, 2910.)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from duet.eval.reading import name_of, need, path_of, read_lines, shown, text_of
from duet.eval.scoring.benchmark import FileBenchmark
from duet.eval.scoring.percentages import by_group, percent, shares
from duet.eval.scoring.question_files import read_questions
from duet.eval.types import Decided, InputError, OfficialStop, Prediction, Sample, Summary

CATEGORIES = ("adversarial", "popular", "random")
# two releases of POPE spell the end of the question differently ("imange")
OBJECT = re.compile(r"is there an? (.+?) in the ima\w*", re.IGNORECASE)


def parse(text: str) -> str:
    """`yes` or `no`."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def object_of(question: str | None) -> str | None:
    """The object that a question asks for; None if it is worded differently."""
    found = OBJECT.search(question or "")
    return found.group(1).lower() if found else None


class Pope(FileBenchmark):
    """Reader and scorer."""

    name = "pope"
    folder = "pope"
    markers = ("llava_pope_test.jsonl", "coco")
    questions = "llava_pope_test.jsonl"
    pictures = "val2014"
    rule = "it gives the k-th answer the k-th label"

    def load(self, root: Path) -> list[Sample]:
        """The question file with the labels that belong to it."""
        folder = self.find(root)
        samples = self.gold(folder)
        self.check(folder, samples)
        return samples

    def gold(self, folder: Path) -> list[Sample]:
        """The question file; a row without label has the answer None."""
        rows = list(read_questions(folder / self.questions, folder / self.pictures))
        labels = {
            (category, Path(row["image"]).name, object_of(row["text"]) or row["text"]): row
            for category in dict.fromkeys(sample.group for sample in rows)
            for row in label_rows(folder, category)
        }
        samples = []
        for sample in rows:
            asked = object_of(sample.question)
            thing = asked or sample.question.split("\n")[0]
            label = labels.get((sample.group, Path(sample.images[0]).name, thing))
            names: list[Hashable] = [("id", sample.id, asked), ("id", sample.id)]
            if label is not None:
                number = label["question_id"]
                names += [("lmms", sample.group, number, asked), ("lmms", number, asked)]
            samples.append(replace(sample, answer=label and label["label"], names=tuple(names)))
        return samples

    def check(self, folder: Path, gold: Sequence[Sample]) -> None:
        """Every question needs its label."""
        bare = [sample for sample in gold if sample.answer is None]
        if bare:
            raise InputError(
                f"{folder / 'coco'}: {len(bare)} of {len(gold)} questions have no label there (the first: id "
                f"{bare[0].id}, {bare[0].group}): label files of another release? LLaVA's questions belong to those of "
                "commit e3e39262 of AoiDragon/POPE"
            )

    def names(self, prediction: Prediction) -> Sequence[Hashable]:
        """The id and the object asked for must agree; lmms-eval counts each category from 1."""
        asked = object_of(prediction.prompt)
        if prediction.doc is not None:
            category = (prediction.category or "").lower()
            return [("lmms", category, prediction.id, asked)] if category else [("lmms", prediction.id, asked)]
        return [("id", prediction.id, asked) if asked else ("id", prediction.id)]

    def decide(self, sample: Sample, text: str) -> tuple[str, float]:
        """yes/no against the label."""
        parsed = parse(text)
        return parsed, float(parsed == sample.answer)

    def official(self, folder: Path, predictions: Sequence[Prediction], decided: Sequence[Decided]) -> list[Decided]:
        """The k-th answer of a category with the k-th label of its file."""
        questions = {row.sample.id: row.sample for row in decided}
        foreign = next((line.id for line in predictions if line.id not in questions), None)
        if foreign is not None:
            raise OfficialStop(f"question_id {foreign} is not in {self.questions}")
        rows = []
        for category in dict.fromkeys(sample.group for sample in questions.values()):
            answers = [line for line in predictions if questions[str(line.id)].group == category]
            labels = [row["label"] for row in label_rows(folder, category)]
            for line, label in zip(answers, [*labels, *[None] * len(answers)], strict=False):
                sample = replace(questions[str(line.id)], answer=label)
                rows.append(Decided(sample, line, *self.decide(sample, line.text), category))
            counted = confusion([row for row in rows if row.group == category])
            if not counted["tp"]:
                raise OfficialStop(f"division by zero: no right yes in category {category}")
        return rows

    def sums(self, decided: Sequence[Decided]) -> dict[str, float]:
        """Confusion of each category, and its questions."""
        found: dict[str, float] = {}
        for category, rows in by_group(decided).items():
            tally = confusion(rows)
            found[f"{category} tp"] = tally["tp"]
            found[f"{category} wrong"] = tally["fp"] + tally["fn"]
            found[f"{category} questions"] = len(rows)
        return found

    def headline(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        """Mean F1 over the categories that have questions."""
        categories = [name.removesuffix(" questions") for name in sums if name.endswith(" questions")]
        there = np.array([sums[f"{category} questions"] > 0 for category in categories])
        f1 = [
            shares(2 * sums[f"{category} tp"], 2 * sums[f"{category} tp"] + sums[f"{category} wrong"])
            for category in categories
        ]
        return np.where(there, f1, 0.0).sum(0) / there.sum(0)

    def summarise(self, decided: Sequence[Decided]) -> Summary:
        """Every published variant: mean over categories, pooled over all rows, per category."""
        tallies = {category: confusion(rows) for category, rows in by_group(decided).items()}
        tables = {category: ratios(tally) for category, tally in tallies.items()}
        pooled, metrics = ratios(confusion(decided)), {}
        for name in ("f1", "accuracy"):
            metrics[f"mean_{name}"] = sum(table[name] for table in tables.values()) / len(tables)
            metrics[f"pooled_{name}"] = pooled[name]
        for category, table in tables.items():
            metrics |= {f"{category}_{name}": value for name, value in table.items()}
        silent = [category for category, tally in tallies.items() if not tally["tp"] + tally["fp"]]
        notes = [f"{category}: no answer is yes, so its precision is set to 0" for category in silent]
        if set(tallies) != set(CATEGORIES):
            notes.append(f"the mean is over {', '.join(tallies)}, not over POPE's three categories")
        return Summary("mean_f1", metrics, tallies, tuple(notes))


def label_rows(folder: Path, category: str) -> list[dict[str, Any]]:
    """The rows of a category's label file."""
    if not category.isidentifier():
        raise InputError(f"{folder / Pope.questions}: category is {shown(category)}, expected {', '.join(CATEGORIES)}")
    path = folder / "coco" / f"coco_pope_{category}.json"
    rows = []
    for number, row in read_lines(path):
        where = f"{path}:{number}"
        label = need(row, "label", where)
        if label not in ("yes", "no"):
            raise InputError(f"{where}: label is {shown(label)}, expected yes or no")
        about = {"question_id": name_of(row, "question_id", where), "image": path_of(row, "image", where)}
        rows.append({**about, "text": text_of(row, "text", where), "label": label})
    return rows


def confusion(rows: Sequence[Decided]) -> dict[str, int]:
    """Counts with yes as positive; a missing answer counts as the wrong one. `yes` counts answers, not labels."""
    seen = Counter((row.sample.answer, row.value == 1) for row in rows)
    answers = [row.parsed for row in rows if row.prediction is not None]
    return {
        "tp": seen["yes", True],
        "fp": seen["no", False],
        "tn": seen["no", True],
        "fn": seen["yes", False],
        "answers": len(answers),
        "yes": answers.count("yes"),
    }


def ratios(tally: dict[str, int]) -> dict[str, float]:
    """Accuracy, precision, recall, F1 and the share of yes among the answers, in percent."""
    tp, fp, tn, fn = (tally[kind] for kind in ("tp", "fp", "tn", "fn"))
    return {
        "accuracy": percent(tp + tn, tp + fp + tn + fn),
        "precision": percent(tp, tp + fp),
        "recall": percent(tp, tp + fn),
        "f1": percent(2 * tp, 2 * tp + fp + fn),
        "yes_ratio": percent(tally["yes"], tally["answers"]),
    }
