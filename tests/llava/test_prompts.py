"""The prompt text against the strings that the original's conversation classes make."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from llava import prompts

CASES = Path(os.environ.get("DUET_CASES", Path(__file__).parents[2] / ".." / "shared" / "cases"))


def official_cases(conversation: str = "vicuna_v1") -> list[dict]:
    path = CASES / "prompts" / "expected.json"
    if not path.is_file():
        return []
    return [case for case in json.loads(path.read_text())["cases"] if case["conv_mode"] == conversation]


@pytest.mark.skipif(not official_cases(), reason="no prompt cases (set DUET_CASES to their folder)")
def test_equal_to_the_official_prompts() -> None:
    for case in official_cases():
        row = case["input_row"]
        if "conversations" in row:
            text = f"{row['conversations'][0]['value']}\n{prompts.OPTION_LETTER}"
        else:
            text = prompts.with_picture(row["text"])
        assert prompts.vicuna_v1(text) == case["prompt"]


@pytest.mark.skipif(not official_cases("llava_v1"), reason="no prompt cases (set DUET_CASES to their folder)")
def test_one_placeholder_stands_for_the_eight_of_the_official_video_prompts() -> None:
    for case in official_cases("llava_v1"):
        (segment,) = prompts.llava_v1_segments([(prompts.with_video(case["input_row"]["question"]), None)])
        assert segment.text.replace(prompts.VIDEO, 8 * prompts.IMAGE) == case["prompt"]


def test_several_turns_end_each_answer() -> None:
    text = prompts.vicuna_v1([("One?", "1"), ("Two?", "2"), ("Three?", None)])
    assert text == f"{prompts.SYSTEM} USER: One? ASSISTANT: 1</s>USER: Two? ASSISTANT: 2</s>USER: Three? ASSISTANT:"


def test_learned_segments_are_the_answers_with_their_end() -> None:
    learned = [
        segment.text for segment in prompts.vicuna_v1_segments([("One?", "1"), ("Two?", "2")]) if segment.learned
    ]
    assert learned == [" 1</s>", " 2</s>"]


def test_plain_keeps_only_picture_and_caption() -> None:
    assert prompts.plain([("<image>\nDescribe it.", "a red ring")]) == "<image>a red ring\n"


def test_choices_with_and_without_context() -> None:
    assert prompts.with_choices("Which?", ["red", "blue"]) == "Which?\nA. red\nB. blue"
    assert prompts.with_choices("Which?", ["red"], "It is dark.") == "Context: It is dark.\nWhich?\nA. red"
