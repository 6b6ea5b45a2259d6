"""The exact request, and what replies mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from duet.eval.judge.protocol import PROMPT_SHA256, Verdict, build_request, read_reply, request_key
from tests.eval_files import case as official_case


def test_requests_equal_those_of_the_official_script():
    cases = json.loads((official_case("judge_prompt") / "expected.json").read_text())["cases"]
    assert len(cases) >= 3
    for case in cases:
        row, expected = case["input"], case["request"]
        assert not expected.pop("other_parameters")
        assert build_request("gpt-3.5-turbo", row["question"], row["answer"], row["pred"]) == expected


def test_a_changed_prompt_is_noticed():
    """Change the number with the prompt: results of both are not to be mixed."""
    assert PROMPT_SHA256.startswith("f205e2bfc15fd029")


def test_text_of_the_row_is_put_in_untouched():
    row = ("it's {x} \\n %s\nnew line", "{}", "{pred}")
    content = build_request("m", *row)["messages"][1]["content"]
    assert f"Question: {row[0]}\nCorrect Answer: {row[1]}\nPredicted Answer: {row[2]}\n\nProvide" in content


def test_key_covers_everything_that_is_sent():
    base = ("m", "q", "a", "p")
    others = [("n", "q", "a", "p"), ("m", "r", "a", "p"), ("m", "q", "b", "p"), ("m", "q", "a", ""), (*base, 0.0)]
    keys = {request_key(build_request(*row)) for row in [base, *others, (*base, 0.5)]}
    assert len(keys) == 7
    assert "temperature" not in build_request(*base)


@pytest.mark.parametrize(
    "text",
    [
        "{'pred': 'yes', 'score': 4}",
        '{"pred": "yes", "score": 4}',
        "  {'pred': 'Yes', 'score': '4'}\n",
        "```python\n{'pred': 'yes', 'score': 4}\n```",
        '```json\n{"pred": "YES", "score": 4}\n```',
        "Sure! Here it is: {'pred': 'yes', 'score': 4}. Anything else?",
        "{'pred': 'yes, it does', 'score': 4, 'why': 'brace } inside'}",
        "{'pred': 'yes', 'score': 4} as I said: {\"pred\": \"yes\", \"score\": 4}",
        '{"pred": "yes", "score": 4, "sure": true}',
    ],
)
def test_readable_replies(text: str):
    assert read_reply(text) == Verdict(True, 4)


def test_official_rules_of_pred_and_score():
    assert read_reply("{'pred': 'no', 'score': 0}") == Verdict(False, 0)
    assert read_reply("{'pred': 'not yes', 'score': 2}") == Verdict(True, 2)  # "yes" is looked for first
    assert read_reply("{'pred': 'unknown', 'score': 2}") == Verdict(False, 2)  # "no" stands in it
    assert read_reply("{'pred': 'yes', 'score': 4.8}") == Verdict(True, 4, cut=True)
    assert read_reply("{'pred': 'yes', 'score': 4.0}") == Verdict(True, 4, cut=False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yes",
        "I cannot tell.",
        "{'pred': 'yes'}",
        "{'score': 4}",
        "{'pred': 'maybe', 'score': 4}",
        "{'pred': True, 'score': 4}",
        "{'pred': 'yes', 'score': True}",
        "{'pred': 'yes', 'score': None}",
        "{'pred': 'yes', 'score': 'high'}",
        "{'pred': 'yes', 'score': '4.8'}",
        "{'pred': 'yes', 'score': '²'}",
        "{'pred': 'yes', 'score': 6}",
        "{'pred': 'yes', 'score': -1}",
        '{"pred": "yes", "score": NaN}',
        '{"pred": "yes", "score": Infinity}',
        "{'pred': 'yes', 'score': 1e999}",
        "{'yes', 4}",
        "['yes', 4]",
        "{'pred': 'yes', 'score': 5} or {'pred': 'no', 'score': 0}",
        "{'pred': 'yes', 'score': 5} or {'pred': 'perhaps', 'score': 0}",
        "{'pred': 'yes', 'score': 4",
        "{'pred': yes, 'score': 4}",
        "{" * 9_000,
        "(" * 9_000,
        " " * 20_000 + "{'pred': 'yes', 'score': 4}",
        "\0{'pred': 'yes', 'score': 4}\0"[:1],
    ],
)
def test_unreadable_replies(text: str):
    assert read_reply(text) is None


def test_nothing_is_evaluated(tmp_path: Path):
    trap = tmp_path / "trap"
    assert read_reply(f"{{'pred': __import__('pathlib').Path({str(trap)!r}).touch() or 'yes', 'score': 5}}") is None
    assert not trap.exists()
