"""Where pictures and videos go in a question."""

from __future__ import annotations

import pytest

from duet.errors import UserError
from duet.text.placeholders import IMAGE, VIDEO, cut, place_media


@pytest.mark.parametrize(
    ("question", "kinds", "expected"),
    [
        ("why?", [IMAGE], "<image>\nwhy?"),
        ("why?", [IMAGE, VIDEO], "<image>\n<video>\nwhy?"),
        ("why?", [], "why?"),
        ("<image> or <video>?", [IMAGE, VIDEO], "<image> or <video>?"),
        ("why? <image>", [IMAGE], "why? <image>"),
    ],
)
def test_place_media(question: str, kinds: list[str], expected: str) -> None:
    assert place_media(question, kinds) == expected
    assert "".join(cut(expected)) == expected


def test_nothing_between() -> None:
    assert place_media("why?", [IMAGE, IMAGE], between="") == "<image><image>why?"


@pytest.mark.parametrize("kinds", [[IMAGE, IMAGE], [VIDEO], []])
def test_placeholders_that_do_not_fit(kinds: list[str]) -> None:
    with pytest.raises(UserError, match=rf"1 placeholder.*<image>.* for {len(kinds)} picture"):
        place_media("<image> why?", kinds)
