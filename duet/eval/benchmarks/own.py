"""A question file of your own: JSON lines, or a JSON list.

    {"image": "pictures/bus.png", "question": "What number does the bus have?", "answer": "42"}
    {"images": ["left.png", "right.png"], "question": "Is <image> or <image> darker?", "answer": ["left", "left one"]}
    {"video": "clips/door.mp4", "question": "Who opens the door?", "answer": "a man", "group": "who", "id": "door-1"}

Paths are relative to the file. The question is asked as it is written; several answers are equally right. `id` is the
row's number unless given, `group` is for breakdowns. Metrics, both in percent, in lower case, without punctuation and
articles: `exact` (headline), the share of answers equal to a right one, and `contains`, the share that contain one as
whole words. `duet judge FILE` asks a language model instead.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from duet.eval.benchmarks.video_qa import contains, words
from duet.eval.reading import name_of, optional_text, path_of, read_json, read_lines, text_of, texts_of
from duet.eval.scoring.benchmark import FileBenchmark
from duet.eval.scoring.percentages import accuracies, by_group
from duet.eval.types import Decided, InputError, Prediction, Sample, Summary

ENTRIES = {"id", "image", "images", "video", "question", "answer", "group"}


class OwnQuestions(FileBenchmark):
    """Reader and scorer of one file; its name is the file's, without the suffix."""

    folder = ""
    markers = ()
    questions = ""
    pictures = ""
    prompt_format = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.stem  # type: ignore[misc]

    def find(self, root: Path) -> Path:
        """The file's folder, whatever the root of the benchmarks is."""
        return self.path.parent

    def load(self, root: Path) -> list[Sample]:
        """All questions with their answers."""
        return self.gold(self.path.parent)

    def gold(self, folder: Path) -> list[Sample]:
        """The rows of the file.

        Raises:
            InputError: a row that is not as the module's docstring says, an id that repeats, or no row.
        """
        if self.path.suffix == ".jsonl":
            rows = [(f"{self.path}:{line}", row) for line, row in read_lines(self.path)]
        else:
            rows = [(f"{self.path}: row {count}", row) for count, row in enumerate(read_json(self.path, list))]
        if not rows:
            raise InputError(f"{self.path} holds no question")
        samples, seen = [], set()
        for count, (where, row) in enumerate(rows):
            sample = _sample(row, where, count, folder)
            if sample.id in seen:
                raise InputError(f"{where}: the id {sample.id!r} is taken by an earlier row")
            seen.add(sample.id)
            samples.append(sample)
        return samples

    def names(self, prediction: Prediction) -> Sequence[Hashable]:
        """The id."""
        return [(prediction.id,)]

    def decide(self, sample: Sample, text: str) -> tuple[str, float]:
        """The compared words, and whether they are those of a right answer."""
        said = words(text)
        return " ".join(said), float(any(said == words(answer) for answer in sample.meta["answers"]))

    def summarise(self, decided: Sequence[Decided]) -> Summary:
        """Both metrics, and `exact` of every group."""
        found = [replace(row, value=float(_contains(row))) for row in decided]
        groups = by_group(decided)
        parts = {f"exact/{name}": rows for name, rows in groups.items()} if len(groups) > 1 else {}
        return Summary("exact", *accuracies({"exact": list(decided), "contains": found, **parts}))


def _contains(row: Decided) -> bool:
    text = "" if row.prediction is None else row.prediction.text
    return any(contains(text, answer) for answer in row.sample.meta["answers"])


def _sample(row: Any, where: str, count: int, folder: Path) -> Sample:
    question = text_of(row, "question", where)
    unknown = sorted(row.keys() - ENTRIES)
    if unknown:
        raise InputError(f"{where}: unknown {', '.join(unknown)}; a row has {', '.join(sorted(ENTRIES))}")
    if sum(name in row for name in ("image", "images", "video")) > 1:
        raise InputError(f"{where}: give one of image, images and video")
    answers = texts_of(row, "answer", where) if isinstance(row.get("answer"), list) else [text_of(row, "answer", where)]
    if not answers or not all(words(answer) for answer in answers):
        raise InputError(f"{where}: answer {row['answer']!r} has no word to compare")
    pictures = [path_of(row, "image", where)] if "image" in row else []
    pictures += texts_of(row, "images", where) if "images" in row else []
    video = str(folder / path_of(row, "video", where)) if "video" in row else None
    name = name_of(row, "id", where) if "id" in row else str(count)
    return Sample(
        name,
        f"{count}:{name}",
        question,
        tuple(str(folder / path) for path in pictures),
        video,
        answers[0],
        ((name,),),
        optional_text(row, "group", where),
        {"answers": answers},
    )
