"""Every generation setting of a task acts or is refused."""

from __future__ import annotations

import pytest

from duet.errors import UserError
from duet.integrations.generation import SAMPLING, read_generation

GREEDY = {"do_sample": False, "num_beams": 1, **dict.fromkeys(SAMPLING)}


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ({}, {"max_new_tokens": 1024, **GREEDY}),
        ({"max_gen_toks": 7, "temperature": 0, "top_p": 0.9, "num_beams": 3}, {**GREEDY, "num_beams": 3}),
        ({"temperature": 0.7, "do_sample": False}, GREEDY),
        ({"temperature": 0.7, "top_k": 5}, {"do_sample": True, "temperature": 0.7, "top_k": 5, "top_p": None}),
        ({"do_sample": True}, {"do_sample": True, "temperature": 1.0}),
        ({"do_sample": True, "temperature": 0.0}, GREEDY),
        ({"repetition_penalty": 1.2, "min_new_tokens": 2}, {"repetition_penalty": 1.2, "min_new_tokens": 2}),
        ({"max_new_tokens": 5, "max_tokens": 5, "num_beams": None}, {"max_new_tokens": 5, "num_beams": 1}),
    ],
)
def test_settings_become_arguments(given, arguments):
    found = read_generation(given).arguments
    assert {name: found[name] for name in arguments} == arguments


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image_aspect_ratio": "pad"}, "image_aspect_ratio is not supported.*ignore=image_aspect_ratio"),
        ({"temperture": 1}, "temperture is not supported.*temperature"),
        ({"max_new_tokens": 5, "max_tokens": 6}, "contradict"),
        ({"max_new_tokens": 0}, "must be a number of tokens"),
        ({"until": [3]}, "until is"),
    ],
)
def test_refusals(given, message):
    with pytest.raises(UserError, match=message):
        read_generation(given)


def test_a_setting_can_be_left_out_by_name():
    assert read_generation({"image_aspect_ratio": "pad"}, ("image_aspect_ratio",)).arguments["max_new_tokens"] == 1024


@pytest.mark.parametrize(
    ("until", "text", "answer"),
    [
        ("\n\n", " A cat.\n\nAnd", "A cat."),
        (["##", "."], "one. two ##", "one"),
        (None, " all of it ", "all of it"),
        ([], "x", "x"),
    ],
)
def test_answers_end_before_the_first_stop(until, text, answer):
    assert read_generation({"until": until}).cut(text) == answer
