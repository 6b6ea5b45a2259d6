"""Video question answering in the Video-LLaVA protocol: TGIF-QA, MSVD-QA, MSRVTT-QA, which differ in names and folders.

    test_q.json   [{"video_name": "jfrrO5K_vKM_55_65", "question_id": "v_jfrrO5K_vKM_55_65_0", "question": "who ...?"}]
    test_a.json   [{"answer": "someone", "type": 3, "question_id": "v_jfrrO5K_vKM_55_65_0"}]
    videos/...    .mp4, .avi, .mov or .mkv

The published numbers are a GPT judge's accuracy. The metrics here need no judge and do not estimate it:
`exact`, the share of answers equal to the gold one, and `contains` (headline), the share that contain it as whole
words, both in percent, in lower case, without punctuation and articles.

Video-LLaVA's multi-process script pairs the questions of every chunk with the answers of the first one; here question
and answer are paired by id.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from duet.eval.reading import locate, name_of, path_of, read_json, text_of
from duet.eval.scoring.benchmark import FileBenchmark
from duet.eval.scoring.percentages import accuracies
from duet.eval.types import Decided, InputError, Prediction, Sample, Summary

ENDINGS = (".mp4", ".avi", ".mov", ".mkv")  # Video-LLaVA tries them in this order
PARENT = "GPT_Zero_Shot_QA"
ARTICLES = {"a", "an", "the"}


def words(text: str) -> list[str]:
    """The words that are compared."""
    return [word for word in re.sub(r"[^\w\s]", " ", text.lower()).split() if word not in ARTICLES]


def contains(text: str, answer: str) -> bool:
    """Whether the answer's words are in the text, consecutively."""
    said, wanted = words(text), words(answer)
    return bool(wanted) and any(said[at : at + len(wanted)] == wanted for at in range(len(said)))


class VideoQa(FileBenchmark):
    """Reader and offline scorer.

    Attributes:
        videos: folder of the videos in the benchmark's own.
    """

    videos: ClassVar[str]
    markers = ("test_q.json", "test_a.json")
    prompt_format = "llava_v1"
    answer_field = "pred"
    max_new_tokens = 1024

    def find(self, root: Path) -> Path:
        """The folder with the question file, under the root of all benchmarks maybe inside `GPT_Zero_Shot_QA`."""
        nested = Path(root) / PARENT
        return locate(nested if nested.is_dir() else Path(root), self.folder, self.markers)

    def load(self, root: Path) -> list[Sample]:
        """All questions; a missing video keeps its first possible path, so the error names it."""
        folder = self.find(root)
        return [replace(sample, video=str(self._video(folder, sample))) for sample in self.gold(folder)]

    def _video(self, folder: Path, sample: Sample) -> Path:
        paths = [folder / self.videos / f"{sample.meta['video']}{ending}" for ending in ENDINGS]
        return next((path for path in paths if path.exists()), paths[0])

    def record(self, sample: Sample, text: str) -> dict[str, Any]:
        """A line of Video-LLaVA's answer file."""
        return {"id": sample.id, "question": sample.question, "answer": sample.answer, self.answer_field: text}

    def gold(self, folder: Path) -> list[Sample]:
        """Questions with their answers."""
        path, samples = folder / "test_q.json", []
        asked = read_json(path, list)
        for count, (row, answer) in enumerate(zip(asked, paired(asked, folder), strict=True)):
            where = f"{path}: row {count}"
            name, question = name_of(row, "question_id", where), text_of(row, "question", where)
            names: tuple[Hashable, ...] = ((name, question), (name,), ("doc", count, question))
            meta = {"video": path_of(row, "video_name", where)}
            samples.append(Sample(name, f"{count}:{name}", question, answer=answer, names=names, meta=meta))
        return samples

    def names(self, prediction: Prediction) -> Sequence[Hashable]:
        """Id and question; the id alone where no question was saved; lmms-eval's row number with the question."""
        question = prediction.prompt
        if prediction.id is None:
            return [("doc", prediction.doc, question)]
        return [(prediction.id,) if question is None or prediction.doc is not None else (prediction.id, question)]

    def decide(self, sample: Sample, text: str) -> tuple[str, float]:
        """The compared words, and whether they hold the answer."""
        return " ".join(words(text)), float(contains(text, sample.answer))

    def summarise(self, decided: Sequence[Decided]) -> Summary:
        """Both offline metrics."""
        exact = [replace(row, value=float(row.parsed == " ".join(words(row.sample.answer)))) for row in decided]
        note = "offline string metrics; published numbers are the accuracy of a GPT judge, a different metric"
        return Summary("contains", *accuracies({"contains": list(decided), "exact": exact}), (note,))


def paired(asked: Sequence[dict[str, Any]], folder: Path) -> list[str]:
    """The answer of every question by id; files in the same order may repeat ids.

    Raises:
        InputError: a question has no answer, or a repeated id leaves its answer open.
    """
    questions, path = folder / "test_q.json", folder / "test_a.json"
    answers = read_json(path, list)
    wanted = [name_of(row, "question_id", f"{questions}: row {count}") for count, row in enumerate(asked)]
    given = [name_of(row, "question_id", f"{path}: row {count}") for count, row in enumerate(answers)]
    texts = [text_of(row, "answer", f"{path}: row {count}") for count, row in enumerate(answers)]
    if wanted == given:
        return texts
    index: dict[str, set[str]] = {}
    for name, text in zip(given, texts, strict=True):
        index.setdefault(name, set()).add(text)
    for name in wanted:
        found = index.get(name, set())
        if len(found) != 1:
            raise InputError(f"{path}: question {name} of {questions.name} has {len(found)} answers, expected one")
    return [next(iter(index[name])) for name in wanted]
