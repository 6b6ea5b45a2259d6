"""MME: 14 subtasks, two yes/no questions per picture, 2374 in all (arXiv 2306.13394).

    llava_mme.jsonl  {"question_id": "posters/images/tt2078768.jpg", "image": "posters/images/tt2078768.jpg",
                      "text": "Is this movie ...?\\nAnswer the question using a single word or phrase.", ...}
    MME_Benchmark_release_version/posters/images/tt2078768.jpg          artwork, celebrity, landmark and scene, too
    MME_Benchmark_release_version/posters/questions_answers_YN/tt2078768.txt
                     Is this movie ...? Please answer yes or no.<TAB>Yes         one line for each of the two questions
    MME_Benchmark_release_version/OCR/0009.jpg, OCR/0009.txt            the other nine subtasks
    gt.jsonl         instead of the tree, for scoring alone: {"category", "id", "question", "answer"} per line

An answer is yes, no or other by the first "yes" or "no" in its first four characters, in lower case.
Per subtask: accuracy plus "accuracy+" (pictures with both answers right), both in percent, so 200 points at most.
Perception sums ten subtasks, cognition four. Headline: their sum, as in the pruning papers (LLaVA-1.5-7B: 1862);
LLaVA's own table has perception alone.

The official `calculation.py` takes lines 2k and 2k+1 for one picture, so two missing answers shift the pairs, and a
tab or line end inside an answer breaks it. Here answers are paired by picture. The questions are those of
`llava_mme.jsonl`; the result says how many more the release contains.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from duet.eval.reading import name_of, read_lines, read_text, shown, text_of
from duet.eval.scoring.benchmark import FileBenchmark
from duet.eval.scoring.percentages import by_group, percent, shares
from duet.eval.scoring.question_files import read_questions
from duet.eval.types import Decided, InputError, OfficialStop, Prediction, Sample, Summary
from duet.llava.prompts import IMAGE, SHORT_ANSWER, with_suffix

NESTED = ("artwork", "celebrity", "landmark", "posters", "scene")
PERCEPTION = ("existence", "count", "position", "color", "OCR", *NESTED)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
RELEASE, TABLE = "MME_Benchmark_release_version", "gt.jsonl"
OFFICIAL_SUFFIX = "Please answer yes or no."
Gold = dict[tuple[str, str, str], str]


def parse(text: str) -> str:
    """`yes`, `no` or `other`."""
    start = text.lower()[:4]
    return next((word for word in ("yes", "no") if word in start), "other")


def bare(question: str) -> str:
    """The question without placeholder and suffix of either kind."""
    for part in (IMAGE, SHORT_ANSWER, OFFICIAL_SUFFIX):
        question = question.replace(part, "")
    return question.strip()


def picture(name: str) -> tuple[str, str]:
    """Category and file stem of `category/file` or `category/images/file`."""
    parts = name.split("/")
    return parts[0], parts[-1].split(".")[0]


class Mme(FileBenchmark):
    """Reader and scorer."""

    name = "mme"
    folder = "MME"
    markers = ("llava_mme.jsonl", RELEASE)
    questions = "llava_mme.jsonl"
    pictures = RELEASE
    rule = "it takes lines 2k and 2k+1 of a subtask for one picture"

    def load(self, root: Path) -> list[Sample]:
        """The question file with the answers of the release."""
        folder = self.find(root)
        asked = list(read_questions(folder / self.questions, folder / self.pictures))
        samples = self._with_answers(asked, answers(folder))
        self.check(folder, samples)
        return samples

    def gold(self, folder: Path) -> list[Sample]:
        """The question file; without one all questions of the release. A row without answer has the answer None."""
        gold = answers(folder)
        if (folder / self.questions).exists():
            rows = list(read_questions(folder / self.questions, folder / self.pictures))
        else:
            rows = [
                Sample(f"{category}/{stem}", f"{count}:{category}/{stem}", with_suffix(question))
                for count, (category, stem, question) in enumerate(gold)
            ]
        return self._with_answers(rows, gold)

    def _with_answers(self, rows: list[Sample], gold: Gold) -> list[Sample]:
        samples = []
        for sample in rows:
            shown, question = picture(sample.id), bare(sample.question)
            names = ((*shown, question), shown)
            meta = {"unasked": len(gold) - len(rows)}
            answer = gold.get((*shown, question))
            samples.append(replace(sample, answer=answer, names=names, group=shown[0], meta=meta))
        return samples

    def unit(self, sample: Sample) -> Hashable:
        """Both questions about a picture: `accuracy+` needs them."""
        return picture(sample.id)

    def check(self, folder: Path, gold: Sequence[Sample]) -> None:
        """Every question needs its answer."""
        missing = [sample for sample in gold if sample.answer is None]
        if missing:
            raise InputError(
                f"{folder / RELEASE}: {len(missing)} of {len(gold)} questions have no answer there (the first: "
                f"{missing[0].id}, {bare(missing[0].question)!r}): is the release complete?"
            )

    def names(self, prediction: Prediction) -> Sequence[Hashable]:
        """Picture and question; the picture alone where no prompt was saved."""
        shown = picture(prediction.id or "")
        return [shown if prediction.prompt is None else (*shown, bare(prediction.prompt))]

    def decide(self, sample: Sample, text: str) -> tuple[str, float]:
        """yes, no or other against the answer."""
        parsed = parse(text)
        return parsed, float(parsed == sample.answer)

    def official(self, folder: Path, predictions: Sequence[Prediction], decided: Sequence[Decided]) -> list[Decided]:
        """Lines 2k and 2k+1 of a subtask are one picture."""
        index = {name: row.sample for row in decided for name in row.sample.names}
        lines: dict[str, list[Decided]] = {}
        for line in predictions:
            sample = index.get(self.names(line)[0])
            if sample is None or sample.answer is None:
                raise OfficialStop(f"line {line.line}: the release has no such question of {line.id}")
            if any(mark in line.text for mark in "\t\n\r"):
                raise OfficialStop(f"line {line.line}: the answer holds a tab or a line end")
            row = Decided(sample, line, *self.decide(sample, line.text), sample.group)
            lines.setdefault(sample.group, []).append(row)
        absent = [name for name in (*PERCEPTION, *COGNITION) if name not in lines]
        odd = [name for name, rows in lines.items() if len(rows) % 2]
        if absent or odd:
            raise OfficialStop(f"subtask {absent[0]} has no answer" if absent else f"{odd[0]}: odd number of lines")
        pairs = ((place // 2, row) for rows in lines.values() for place, row in enumerate(rows))
        return [replace(row, sample=replace(row.sample, id=f"pair {pair}")) for pair, row in pairs]

    def sums(self, decided: Sequence[Decided]) -> dict[str, float]:
        """Counts of each subtask that is part of the total."""
        found: dict[str, float] = {}
        for subtask, rows in by_group(decided).items():
            if subtask in (*PERCEPTION, *COGNITION):
                tally = count(rows)
                names = ("questions", "right", "pictures", "both_right")
                found |= {f"{subtask} {name}": tally[name] for name in names}
        return found

    def headline(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        """The total."""
        subtasks = [name.removesuffix(" questions") for name in sums if name.endswith(" questions")]
        points = [
            shares(sums[f"{name} right"], sums[f"{name} questions"])
            + shares(sums[f"{name} both_right"], sums[f"{name} pictures"])
            for name in subtasks
        ]
        return np.sum(points, axis=0) if points else np.zeros(1)

    def summarise(self, decided: Sequence[Decided]) -> Summary:
        """Points per subtask, perception, cognition and total."""
        metrics: dict[str, float] = {"total": 0.0, "perception": 0.0, "cognition": 0.0}
        tallies: dict[str, dict[str, int]] = {}
        shares: dict[str, float] = {}
        for subtask, rows in by_group(decided).items():
            tally = tallies[subtask] = count(rows)
            exact = percent(tally["right"], tally["questions"])
            both = percent(tally["both_right"], tally["pictures"])
            shares |= {f"{subtask}_acc": exact, f"{subtask}_acc_plus": both}
            metrics[subtask] = exact + both
        metrics["perception"] = sum(metrics.get(name, 0.0) for name in PERCEPTION)
        metrics["cognition"] = sum(metrics.get(name, 0.0) for name in COGNITION)
        metrics["total"] = metrics["perception"] + metrics["cognition"]
        return Summary("total", metrics | shares, tallies, tuple(remarks(decided, tallies)))


def answers(folder: Path) -> Gold:
    """(category, file stem, bare question) -> yes or no, of the release's tree or of `gt.jsonl`."""
    rows = release_rows(folder / RELEASE) if (folder / RELEASE).is_dir() else table_rows(folder / TABLE)
    gold: Gold = {}
    for where, category, stem, question, answer in rows:
        if answer.lower() not in ("yes", "no"):
            raise InputError(f"{where}: answer {shown(answer)}, expected Yes or No")
        gold[category, stem, bare(question)] = answer.lower()
    if not gold:
        raise InputError(f"{folder / RELEASE}: holds no question file CATEGORY/ID.txt")
    return gold


def release_rows(release: Path) -> Iterable[tuple[str, str, str, str, str]]:
    """(where, category, stem, question, answer) of every line of every `.txt` file of the release."""
    for category in sorted(place for place in release.iterdir() if place.is_dir()):
        nested = category / "questions_answers_YN"
        for path in sorted((nested if nested.is_dir() else category).glob("*.txt")):
            for number, line in enumerate(read_text(path).split("\n"), start=1):
                if not line.strip():
                    continue
                parts = line.strip().split("\t")
                if len(parts) != 2:
                    raise InputError(f"{path}:{number}: expected question, tab, Yes or No")
                yield f"{path}:{number}", category.name, path.stem.split(".")[0], parts[0], parts[1].strip()


def table_rows(path: Path) -> Iterable[tuple[str, str, str, str, str]]:
    """The same for the flat table."""
    for number, row in read_lines(path):
        where = f"{path}:{number}"
        category, stem = name_of(row, "category", where), name_of(row, "id", where)
        question, answer = text_of(row, "question", where), text_of(row, "answer", where)
        yield where, category, stem.split(".")[0], question, answer


def count(rows: Sequence[Decided]) -> dict[str, int]:
    """Counts of one subtask. A picture is right if all its questions are, and it has at least two."""
    pictures: dict[Hashable, list[float]] = {}
    for row in rows:
        pictures.setdefault(picture(row.sample.id), []).append(row.value)
    return {
        "questions": len(rows),
        "right": int(sum(row.value for row in rows)),
        "pictures": len(pictures),
        "both_right": sum(len(values) > 1 and all(values) for values in pictures.values()),
        "other": sum(row.parsed == "other" for row in rows),
    }


def remarks(decided: Sequence[Decided], tallies: dict[str, dict[str, int]]) -> Iterable[str]:
    """Reasons why these points are not comparable with the paper's."""
    absent = [name for name in (*PERCEPTION, *COGNITION) if name not in tallies]
    if absent:
        yield f"subtasks without questions count 0: {', '.join(absent)}"
    unasked = decided[0].sample.meta["unasked"]
    if unasked > 0:
        yield f"the release has {unasked} more questions than {Mme.questions} asks"
