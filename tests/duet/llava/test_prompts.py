"""The prompt text against the strings that the original's conversation classes make."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from duet.llava import prompts
from duet.text.placeholders import IMAGE, VIDEO
from duet.videollava.asking import VideoLlavaAsking

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
        text = VideoLlavaAsking(None, None).prompt(case["input_row"]["question"], [VIDEO], "llava_v1")
        assert text.replace(VIDEO, 8 * IMAGE) == case["prompt"]


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


def test_mistral_instruct_has_no_system_sentence_and_a_blank_before_the_end() -> None:
    """`conv_mistral_instruct` of LLaVA; the prompt of the llava-hf/llava-v1.6-mistral-7b-hf model card."""
    assert prompts.conversation_text("mistral_instruct", "<image>\nWhat is shown in this image?") == (
        "[INST] <image>\nWhat is shown in this image? [/INST]"
    )
    segments = prompts.mistral_instruct_segments([("One?", "1"), ("Two?", "2"), ("Three?", None)])
    text = "".join(segment.text for segment in segments)
    assert text == "[INST] One? [/INST] 1 </s>[INST] Two? [/INST] 2 </s>[INST] Three? [/INST]"
    assert [segment.text for segment in segments if segment.learned] == [" 1 </s>", " 2 </s>"]


def test_llava_llama_3_is_the_chat_template_of_llama_3() -> None:
    """`conv_llava_llama_3` hands its turns to Meta-Llama-3-8B-Instruct's chat template, restated here."""
    from jinja2 import Template

    template = Template(
        "{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + "
        "message['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if ask %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        keep_trailing_newline=True,
    )
    messages = [{"role": "system", "content": prompts.HELPFUL_SYSTEM}]
    messages += [{"role": "user", "content": "<image>\nOne? "}, {"role": "assistant", "content": "1"}]
    segments = prompts.llava_llama_3_segments([("<image>\nOne? ", "1")])
    assert "".join(segment.text for segment in segments) == template.render(messages=messages, ask=False)
    assert [segment.text for segment in segments if segment.learned] == ["1<|eot_id|>"]
    messages.append({"role": "user", "content": "Two?"})
    segments = prompts.llava_llama_3_segments([("<image>\nOne? ", "1"), ("Two?", None)])
    assert "".join(segment.text for segment in segments) == template.render(messages=messages, ask=True)
