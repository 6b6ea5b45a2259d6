"""TextVQA 0.5.1 val: 5000 questions about text in pictures, ten human answers each (arXiv 1904.08920).

    llava_textvqa_val_v051_ocr.jsonl  {"question_id": "003a8ae2ef43b901", "image": "003a8ae2ef43b901.jpg", "text": "What
                                       is the brand of this camera?\\nReference OCR token: DAKOTA, DIGITAL\\nAnswer the
                                       question using a single word or phrase.", "category": "default"}
    TextVQA_0.5.1_val.json            {"data": [{"question": "what is the brand of this camera?", "question_id": 34602,
                                       "image_id": "003a8ae2ef43b901", "answers": ["dakota", ...ten], ...}, ...]}
    train_images/003a8ae2ef43b901.jpg

LLaVA's `question_id` is the picture's id, so a row is found by picture and question, read back from the prompt.
Headline: mean soft accuracy in percent (`duet.eval.scoring.vqa_text`). The OCR line adds a dozen points
(LLaVA-1.5-7B: 58.2 with it), so the result says how many prompts have it.

LLaVA's `eval_textvqa.py` (c121f04) averages over the lines of the prediction file, so missing questions drop out of the
denominator and repeated ones count twice; here every question counts once.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from pathlib import Path

from duet.eval.reading import name_of, read_json, rows_of, text_of, texts_of
from duet.eval.scoring.benchmark import FileBenchmark
from duet.eval.scoring.percentages import percent
from duet.eval.scoring.vqa_text import normalise, soft_accuracy
from duet.eval.types import Decided, InputError, OfficialStop, Prediction, Sample, Summary
from duet.llava.prompts import IMAGE, with_suffix

OCR_LINE = "Reference OCR token:"
SHORT_FORM = re.compile(r"OCR tokens: (.*?)\.? ?Question: (.*?) Short answer:", re.DOTALL)


def question_of(prompt: str) -> str:
    """The question in lower case, from any prompt form that LLaVA's scorer accepts."""
    short = SHORT_FORM.match(prompt)
    if short:
        return short.group(2).lower()
    lines = prompt.replace(IMAGE, "").lstrip("\n").split("\n")
    return next((line for line in lines if not line.startswith(OCR_LINE)), "").lower()


def official_question(prompt: str) -> str | None:
    """The question in lower case as LLaVA's `prompt_processor` reads it; None if its assertion fails."""
    parts = prompt.split("\n")
    if prompt.startswith("OCR tokens: "):
        found = re.search(r"Question: (.*?) Short answer:", prompt, re.DOTALL)
        return None if found is None else found.group(1).lower()
    if f"{OCR_LINE} " in prompt and len(parts) == 3:
        return parts[prompt.startswith(OCR_LINE)].lower()
    return parts[0].lower() if len(parts) == 2 else None


def ocr_tokens(prompt: str) -> str | None:
    """The OCR tokens in the prompt, maybe none; None if the prompt has no line for them."""
    short = SHORT_FORM.match(prompt)
    if short:
        return short.group(1).strip()
    return next((line[len(OCR_LINE) :].strip() for line in prompt.split("\n") if line.startswith(OCR_LINE)), None)


class TextVqa(FileBenchmark):
    """Reader and scorer."""

    name = "textvqa"
    folder = "textvqa"
    markers = ("TextVQA_0.5.1_val.json", "llava_textvqa_val_v051_ocr.jsonl")
    questions = "llava_textvqa_val_v051_ocr.jsonl"
    pictures = "train_images"
    rule = "it averages over the lines of the prediction file"

    def gold(self, folder: Path) -> list[Sample]:
        """The annotation, every row with its ten answers."""
        path = folder / "TextVQA_0.5.1_val.json"
        samples = []
        for count, row in enumerate(rows_of(read_json(path), "data", path)):
            where = f"{path}: data[{count}]"
            image, question = name_of(row, "image_id", where), text_of(row, "question", where)
            answers = texts_of(row, "answers", where)
            if len(answers) != 10:
                raise InputError(f"{where}: has {len(answers)} answers, expected ten")
            names: list[Hashable] = [("image", image, question.lower()), ("image", image)]
            if row.get("question_id") is not None:
                names.append(("row", name_of(row, "question_id", where)))
            key, prompt = f"{count}:{image}", with_suffix(question)
            samples.append(Sample(image, key, prompt, answer=answers, names=tuple(names)))
        return samples

    def names(self, prediction: Prediction) -> Sequence[Hashable]:
        """Picture and question; the picture alone where no prompt was saved; the annotation's own id in lmms-eval."""
        if prediction.doc is not None:
            return [("row", prediction.id)]
        if prediction.prompt is None:
            return [("image", prediction.id)]
        return [("image", prediction.id, question_of(prediction.prompt))]

    def decide(self, sample: Sample, text: str) -> tuple[str, float]:
        """The normalised text and its soft accuracy."""
        return normalise(text), soft_accuracy(text, sample.answer)

    def official(self, folder: Path, predictions: Sequence[Prediction], decided: Sequence[Decided]) -> list[Decided]:
        """One row per line of the prediction file."""
        index = {name: row.sample for row in decided for name in row.sample.names}
        rows = []
        for line in predictions:
            names = self.names(line)
            if line.doc is None:
                question = official_question(line.prompt or "")
                if question is None:
                    shown = "no prompt" if line.prompt is None else f"prompt {line.prompt[:60]!r}"
                    raise OfficialStop(f"line {line.line}: {shown}: LLaVA's reader accepts only its own prompt forms")
                names = [("image", line.id, question)]
            name = next((name for name in names if name in index), None)
            if name is None:
                raise OfficialStop(f"line {line.line}: no question of picture {line.id} fits its prompt")
            rows.append(Decided(index[name], line, *self.decide(index[name], line.text)))
        return rows

    def summarise(self, decided: Sequence[Decided]) -> Summary:
        """Mean soft accuracy, with a note on OCR tokens."""
        prompts = [row.prediction.prompt or "" for row in decided if row.prediction is not None]
        tokens = [ocr_tokens(prompt) for prompt in prompts]
        lines, filled = sum(found is not None for found in tokens), sum(bool(found) for found in tokens)
        tally = {"rows": len(decided), "with_ocr_line": lines, "with_ocr_tokens": filled}
        note = f"OCR tokens are in {filled} of {len(prompts)} prompts (the line for them, maybe empty, in {lines})"
        metrics = {"accuracy": percent(sum(row.value for row in decided), len(decided))}
        return Summary("accuracy", metrics, {"accuracy": tally}, (note,))
