"""Own templates and frame rates."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from duet.errors import UserError
from duet.prompt_style import OWN, PromptStyle
from duet.text.placeholders import IMAGE, VIDEO

QWEN = SimpleNamespace(between="", marks={IMAGE: "<|img|>", VIDEO: "<|vid|>"}, frames=lambda seconds: 8)
QWEN.prompt = lambda question, kinds, original: f"own {question} {len(kinds)}"


def test_the_default_is_the_familys():
    assert OWN.prompt(QWEN, "why?", [IMAGE]) == "own why? 1"
    assert OWN.frames(QWEN)(100.0) == 8
    assert OWN.settings() == {}


def test_a_template_takes_pictures_where_the_question_has_them():
    style = PromptStyle("Q: {question} A:")
    assert style.prompt(QWEN, "why?", [IMAGE, VIDEO]) == "Q: <|img|><|vid|>why? A:"
    assert style.prompt(QWEN, "is <image> dark?", [IMAGE]) == "Q: is <|img|> dark? A:"
    assert style.settings() == {"template": "Q: {question} A:"}
    with pytest.raises(UserError):
        style.prompt(QWEN, "<image> or <image>?", [IMAGE])


@pytest.mark.parametrize(("seconds", "frames"), [(0.1, 1), (3.2, 6), (1000.0, 768)])
def test_frames_per_second(seconds, frames):
    assert PromptStyle(fps=2).frames(QWEN)(seconds) == frames


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"template": "Q:"}, "needs {question} once"),
        ({"template": "{question} {question}"}, "needs {question} once"),
        ({"template": "<image>{question}"}, "leave them out"),
        ({"fps": 0.0}, "positive number"),
        ({"fps": float("inf")}, "positive number"),
        ({"fps": float("nan")}, "positive number"),
    ],
)
def test_what_cannot_be(fields, message):
    with pytest.raises(UserError, match=message):
        PromptStyle(**fields)
