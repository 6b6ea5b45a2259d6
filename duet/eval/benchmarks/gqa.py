"""GQA testdev-balanced: 12578 compositional questions on 398 pictures (arXiv 1902.09506).

    llava_gqa_testdev_balanced.jsonl      {"question_id": "201307251", "image": "n161313.jpg", "category": "default",
                                           "text": "Is it overcast?\\nAnswer the question using a single word ..."}
    data/testdev_balanced_questions.json  {"201307251": {"question": "Is it overcast?", "answer": "no", "isBalanced":
                                           true, "types": {"structural": "verify", "semantic": "global", ...},
                                           "groups": {"global": ..., ...}, "semantic": [{"operation": ...}, ...], ...}}
    data/images/n161313.jpg

Answers are lower-cased and trailing full stops are removed, nothing else. Headline: share of balanced questions whose
answer equals the gold string, in percent. Also by answer type (binary, open), structural and semantic type, reasoning
steps, words, and the chi-square distance of the answer distribution (lower is better), as in GQA's `eval.py`.

`eval.py` stops where an answer is missing (here it counts as wrong) and wants scene graphs and answer choices that
testdev does not have; validity, plausibility and grounding, which need them, are left out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from duet.eval.reading import mapping_of, optional_text, read_json, rows_of, text_of
from duet.eval.scoring.benchmark import FileBenchmark
from duet.eval.scoring.percentages import accuracies
from duet.eval.types import Decided, InputError, OfficialStop, Prediction, Sample, Summary
from duet.llava.prompts import with_suffix

# final steps of a program, not counted as reasoning (GQA eval.py, getStepsNum)
FINAL_STEPS = ("exist", "query: name", "choose name")


def parse(text: str) -> str:
    """LLaVA's `convert_gqa_for_eval.py`."""
    return text.rstrip(".").lower()


class Gqa(FileBenchmark):
    """Reader and scorer."""

    name = "gqa"
    folder = "gqa"
    markers = ("llava_gqa_testdev_balanced.jsonl", "data/testdev_balanced_questions.json")
    questions = "llava_gqa_testdev_balanced.jsonl"
    pictures = "data/images"

    def gold(self, folder: Path) -> list[Sample]:
        """The balanced questions of the annotation."""
        path = folder / "data" / "testdev_balanced_questions.json"
        samples: list[Sample] = []
        for name, row in read_json(path).items():
            where = f"{path}: question {name}"
            question, answer = text_of(row, "question", where), text_of(row, "answer", where)
            if not row.get("isBalanced", True):
                continue
            names = (("id", name), ("doc", len(samples), question))
            group = optional_text(mapping_of(row, "groups", where), "global", where) or None
            meta = {"kinds": kinds(row, where), "group": group}
            key = f"{len(samples)}:{name}"
            samples.append(Sample(name, key, with_suffix(question), answer=answer, names=names, meta=meta))
        if not samples:
            raise InputError(f"{path}: holds no balanced question")
        return samples

    def category(self, sample: Sample) -> str:
        """The question's structural type."""
        kinds = sample.meta.get("kinds", [])
        return next((kind for kind in kinds if kind.startswith("structural/")), "")

    def names(self, prediction: Prediction) -> Sequence[Hashable]:
        """The id; without one, lmms-eval's row number, if the question matches."""
        if prediction.id is None:
            return [("doc", prediction.doc, (prediction.prompt or "").split("\n")[0])]
        return [("id", prediction.id)]

    def decide(self, sample: Sample, text: str) -> tuple[str, float]:
        """Equal strings."""
        parsed = parse(text)
        return parsed, float(parsed == sample.answer)

    def official(
        self, folder: Path, predictions: Sequence[Prediction], decided: Sequence[Decided]
    ) -> Sequence[Decided]:
        """The same rows, none missing."""
        bare = next((row.sample.id for row in decided if row.prediction is None), None)
        if bare is not None:
            raise OfficialStop(f"no prediction for question {bare}")
        return decided

    def summarise(self, decided: Sequence[Decided]) -> Summary:
        """Accuracy over all rows and over every kind of question."""
        parts: dict[str, list[Decided]] = defaultdict(list)
        for row in decided:
            for kind in row.sample.meta["kinds"]:
                parts[kind].append(row)
        order = sorted(parts, key=lambda kind: (kind.split("/")[0], len(kind), kind))
        metrics, tallies = accuracies({"accuracy": list(decided)} | {kind: parts[kind] for kind in order})
        return Summary("accuracy", metrics | {"distribution": distribution(decided)}, tallies)


def kinds(row: dict[str, Any], where: str = "row") -> list[str]:
    """Every breakdown that a question belongs to, e.g. `structural/verify`; absent fields are skipped."""
    types = mapping_of(row, "types", where)
    types = {name: text_of(types, name, where) for name in ("structural", "semantic") if types.get(name) is not None}
    found = [f"words/{len(row['question'].split())}"]
    if "semantic" in row:
        steps = [f"{step.get('operation')}: {step.get('argument')}" for step in rows_of(row, "semantic", where)]
        found.append(f"steps/{sum(not any(final in step for final in FINAL_STEPS) for step in steps)}")
    if "structural" in types:
        found += ["open" if types["structural"] == "query" else "binary", f"structural/{types['structural']}"]
    if "semantic" in types:
        found.append(f"semantic/{types['semantic']}")
    return found


def distribution(decided: Sequence[Decided]) -> float:
    """Chi-square of answered against gold counts, averaged over question groups by size, / 100; 0 without groups."""
    gold: dict[str, Counter] = defaultdict(Counter)
    answered: dict[str, Counter] = defaultdict(Counter)
    for row in decided:
        group = row.sample.meta["group"]
        if group is not None:
            gold[group][row.sample.answer] += 1
            answered[group][row.parsed] += 1
    weighted = total = 0.0
    for group, wanted in gold.items():
        score = sum((answered[group][answer] - count) ** 2 / count for answer, count in wanted.items())
        weighted += score * wanted.total()
        total += wanted.total()
    return weighted / total / 100 if total else 0.0
