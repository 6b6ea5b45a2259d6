"""lmms-eval's questions become the prompts of `duet ask`."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from PIL import Image

from duet.errors import UserError
from duet.integrations.conversations import chat_question, simple_question
from tests.small_world import random_answerer

PICTURE = Image.new("RGB", (40, 30), "red")
TEXT, SHOWN = {"type": "text", "text": "Is it red?"}, {"type": "image", "url": PICTURE}


@cache
def asking() -> Any:
    return random_answerer().asking


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


@pytest.mark.parametrize("order", [[SHOWN, TEXT], [TEXT, SHOWN]])
def test_a_question_is_the_same_in_both_forms(order):
    expected = asking().prompt("Is it red?", ["<image>"])
    chat, simple = chat_question(asking(), [user(*order)]), simple_question(asking(), "Is it red?", [PICTURE])
    assert chat.text == simple.text == expected
    assert [one.size for one in (*chat.media, *simple.media)] == [PICTURE.size] * 2


def test_a_picture_between_words_stays_there():
    found = chat_question(asking(), [user(TEXT, SHOWN, {"type": "text", "text": "And now?"})])
    assert "Is it red?<image>\nAnd now?" in found.text


def test_turns_and_system_message():
    turns = [user(SHOWN, TEXT), {"role": "assistant", "content": "No."}, user({"type": "text", "text": "Sure?"})]
    found = chat_question(asking(), [{"role": "system", "content": "Be brief."}, *turns])
    places = [found.text.index(text) for text in ("Be brief.", "<image>", "Is it red?", "No.", "Sure?")]
    assert places == sorted(places)
    assert found.text.endswith("ASSISTANT:")


def test_a_text_without_pictures():
    assert simple_question(asking(), "Who?", None).media == ()


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: simple_question(asking(), "?", ["clip.mp4"]), "clip.mp4 is a video; this model takes only pictures"),
        (lambda: simple_question(asking(), "?", [{"array": 1}]), "visual is dict"),
        (lambda: chat_question(asking(), [user({"type": "audio", "url": "a.wav"})]), "a message holds audio"),
        (lambda: chat_question(asking(), [user(TEXT), user(TEXT)]), "user and assistant in turns"),
        (lambda: chat_question(asking(), []), "user and assistant in turns"),
    ],
)
def test_refusals(ask, message):
    with pytest.raises(UserError, match=message):
        ask()
