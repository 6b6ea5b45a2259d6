"""What is sent to the judge and what its reply means, as in Video-LLaVA's evaluation.

Source: PKU-YuanGroup/Video-LLaVA@984e65b videollava/eval/video/eval_video_qa.py. The messages are exactly that
script's, including lines that run together and the example score 4.8 next to "INTEGER". No sampling parameter is
sent unless asked for, so the endpoint's default applies (1.0 at OpenAI) and the judge itself is random.

    question, answer, prediction -> request body -> reply "{'pred': 'yes', 'score': 4}" -> Verdict(True, 4)
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

SYSTEM = (
    "You are an intelligent chatbot designed for evaluating the correctness of generative outputs for question-answer "
    "pairs. Your task is to compare the predicted answer with the correct answer and determine if they match "
    "meaningfully. Here's how you can accomplish the task:------##INSTRUCTIONS: "
    "- Focus on the meaningful match between the predicted answer and the correct answer.\n"
    "- Consider synonyms or paraphrases as valid matches.\n"
    "- Evaluate the correctness of the prediction compared to the answer."
)
OPENING = "Please evaluate the following video-based question-answer pair:\n\n"
TASK = (
    "Provide your evaluation only as a yes/no and score where the score is an integer value between 0 and 5, with 5 "
    "indicating the highest meaningful match. Please generate the response in the form of a Python dictionary string "
    "with keys 'pred' and 'score', where value of 'pred' is  a string of 'yes' or 'no' and value of 'score' is in "
    "INTEGER, not STRING.DO NOT PROVIDE ANY OTHER OUTPUT TEXT OR EXPLANATION. Only provide the Python dictionary "
    "string. For example, your response should look like this: {'pred': 'yes', 'score': 4.8}."
)
BEST_SCORE = 5
LONGEST_REPLY = 10_000  # characters; the longest sensible reply has about 100


@dataclass(frozen=True)
class Verdict:
    """A readable reply.

    Attributes:
        right: the prediction matches the answer.
        score: 0 to 5.
        cut: the judge gave a fraction, cut to an integer as the official script does.
    """

    right: bool
    score: int
    cut: bool = False


def build_request(
    model: str, question: str, answer: str, prediction: str, temperature: float | None = None
) -> dict[str, Any]:
    """The request body for one row."""
    asked = f"Question: {question}\nCorrect Answer: {answer}\nPredicted Answer: {prediction}\n\n"
    body: dict[str, Any] = {
        "model": model,
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": f"{OPENING}{asked}{TASK}"},
        ],
    }
    return body if temperature is None else {**body, "temperature": temperature}


def request_key(request: dict[str, Any]) -> str:
    """Key of a request in the cache; it covers the whole request.

    That is question, answer, prediction, judge model, prompt and sampling parameters.
    """
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


#: Changes with every word of the messages.
PROMPT_SHA256 = request_key(build_request("{model}", "{question}", "{answer}", "{prediction}"))


def read_reply(text: str) -> Verdict | None:
    """The verdict in a reply; None if it cannot be read.

    Nothing is evaluated: a Python literal or JSON, bare, in a code fence or with text around it. `pred` is yes where
    "yes" is in it, else no if "no" is (the official rule); `score` is a number from 0 to 5, or a string of an
    integer. A reply with two different dictionaries is unreadable.
    """
    if len(text) > LONGEST_REPLY:
        return None
    whole = _parse(text.strip())
    if isinstance(whole, dict):
        return _verdict(whole)
    inside = {_verdict(found) for part in re.findall(r"\{[^{}]*\}", text) if isinstance(found := _parse(part), dict)}
    return inside.pop() if len(inside) == 1 else None


def _parse(text: str) -> Any:
    for reader in (ast.literal_eval, json.loads):
        try:
            return reader(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return None


def _verdict(found: dict[Any, Any]) -> Verdict | None:
    pred, score = found.get("pred"), found.get("score")
    if isinstance(score, str):
        score = int(score) if re.fullmatch(r"\s*[0-9]\s*", score) else None
    if not isinstance(pred, str) or not ("yes" in pred.lower() or "no" in pred.lower()):
        return None
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= BEST_SCORE:
        return None
    return Verdict("yes" in pred.lower(), int(score), score != int(score))
