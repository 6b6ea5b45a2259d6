"""What a model is asked: the exact prompt, the length that batches are planned by, hashes that see changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from duet.errors import UserError
from duet.eval.asking.task import prompt, read_task
from duet.eval.benchmarks import get
from duet.eval.scoring.benchmark import decide_lines
from duet.eval.types import Sample
from duet.videollava.asking import VideoLlavaAsking
from tests.small_world import random_answerer, write_questions


def test_prompts_are_those_of_the_original_evaluation() -> None:
    sample, asking = Sample("7", "0:7", "Is there a dog?", images=("a.png",)), random_answerer().asking
    assert prompt(sample, asking, "vicuna_v1").endswith("questions. USER: <image>\nIs there a dog? ASSISTANT:")
    assert prompt(replace(sample, images=()), asking, "vicuna_v1").endswith("USER: Is there a dog? ASSISTANT:")


def test_a_video_has_one_placeholder_in_the_conversation_of_its_model() -> None:
    text = prompt(Sample("7", "0:7", "who runs?", video="a.mp4"), VideoLlavaAsking(None, None), "llava_v1")
    assert text.startswith("A chat between a curious human")
    assert text.endswith("the human's questions. USER: <video>\nwho runs? ASSISTANT:")


def test_sizes_count_text_tokens_and_pictures(tmp_path: Path) -> None:
    answerer = random_answerer()
    questions = read_task(answerer, "scienceqa", write_questions(tmp_path, "scienceqa"), batch_size=5)
    assert sorted({pictures for pictures, _ in questions.sizes}) == [0, 1]
    for sample, text, (pictures, tokens) in zip(questions.samples, questions.prompts, questions.sizes, strict=True):
        assert answerer.encode(text, sample.images).inputs["input_ids"].shape == (1, tokens + 100 * pictures)


def test_hashes_follow_prompts_and_pictures(tmp_path: Path) -> None:
    root = write_questions(tmp_path, "pope")

    def hashes() -> tuple[str, str]:
        settings = read_task(random_answerer(), "pope", root, batch_size=4).settings
        return settings["prompt_hash"], settings["data_hash"]

    first = hashes()
    assert hashes() == first
    next((root / "pope" / "val2014").iterdir()).write_bytes(b"another picture")
    assert hashes()[0] == first[0]
    assert hashes()[1] != first[1]


def test_videos_and_an_empty_task_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_questions(tmp_path, "pope")
    with pytest.raises(UserError, match="no question left"):
        read_task(random_answerer(), "pope", root, batch_size=4, limit=0)
    clip = [Sample("1", "0:1", "who?", video="a.mp4", answer="a man")]
    monkeypatch.setattr("duet.eval.benchmarks.pope.Pope.load", lambda self, root: clip)
    with pytest.raises(UserError, match="asks about videos"):
        read_task(random_answerer(), "pope", root, batch_size=4)


def test_a_question_without_answer_is_wrong(tmp_path: Path) -> None:
    benchmark = get("pope")
    samples = benchmark.load(write_questions(tmp_path, "pope"))
    rows = decide_lines(benchmark, samples, [{"key": sample.key, "text": sample.answer} for sample in samples[1:]])
    assert [row.value for row in rows] == [0.0] + [1.0] * (len(samples) - 1)
    assert rows[0].prediction is None
