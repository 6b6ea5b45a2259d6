"""Chat templates of LLaVA-1.5 as pure functions: turns -> text, with the parts that the model is trained on marked.

`vicuna_v1` is the conversation of LLaVA-1.5 (arXiv 2310.03744), `llava_v1` that of Video-LLaVA (arXiv 2311.10122) with
a "human" in place of the "user", `plain` that of projector pretraining: the picture, then the caption, nothing else. A
turn is a (question, answer) pair; an open question has the answer None and the text then ends right behind
"ASSISTANT:", with no blank, as every benchmark of the original asks it. Questions carry their `<image>` or `<video>`
placeholder themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

IMAGE, VIDEO = "<image>", "<video>"
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
HUMAN_SYSTEM = SYSTEM.replace("user", "human")
END = "</s>"
SHORT_ANSWER = "Answer the question using a single word or phrase."
OPTION_LETTER = "Answer with the option's letter from the given choices directly."

Turn = tuple[str, str | None]


class Segment(NamedTuple):
    """A piece of a prompt. `learned` marks what the loss is computed on: an answer with its end-of-sentence token."""

    text: str
    learned: bool


def vicuna_v1_segments(turns: Sequence[Turn], system: str = SYSTEM) -> list[Segment]:
    """The conversation in pieces; an answer's piece starts with the blank behind "ASSISTANT:"."""
    segments, opening = [], f"{system} "
    for question, answer in turns:
        segments.append(Segment(f"{opening}USER: {question} ASSISTANT:", False))
        if answer is not None:
            segments.append(Segment(f" {answer}{END}", True))
        opening = ""
    return segments


def llava_v1_segments(turns: Sequence[Turn]) -> list[Segment]:
    """The conversation of Video-LLaVA in pieces, as `vicuna_v1_segments`."""
    return vicuna_v1_segments(turns, HUMAN_SYSTEM)


def plain_segments(turns: Sequence[Turn]) -> list[Segment]:
    """Pictures, then their caption and a line end. Of each question only the placeholders stay (LLaVA's stage 1)."""
    segments = []
    for question, answer in turns:
        segments.append(Segment(IMAGE * question.count(IMAGE), False))
        if answer is not None:
            segments.append(Segment(f"{answer}\n", True))
    return segments


TEMPLATES = {"vicuna_v1": vicuna_v1_segments, "llava_v1": llava_v1_segments, "plain": plain_segments}


def vicuna_v1(turns: Sequence[Turn] | str) -> str:
    """The whole conversation as text; a string is one open question.

    >>> vicuna_v1("<image>\\nIs it dark?")[-39:]
    'USER: <image>\\nIs it dark? ASSISTANT:'
    """
    return "".join(segment.text for segment in vicuna_v1_segments([(turns, None)] if isinstance(turns, str) else turns))


def plain(turns: Sequence[Turn] | str) -> str:
    """The pretraining prompt as text; a string is one open caption request."""
    return "".join(segment.text for segment in plain_segments([(turns, None)] if isinstance(turns, str) else turns))


def with_picture(question: str) -> str:
    """The question with the picture's placeholder on a line of its own in front."""
    return f"{IMAGE}\n{question}"


def with_video(question: str) -> str:
    """The question with the video's placeholder on a line of its own in front.

    It stands for all frames together; the original writes one `<image>` for each.
    """
    return f"{VIDEO}\n{question}"


def with_choices(question: str, choices: Sequence[str], hint: str = "") -> str:
    """Question, optional context line before it, and the options as lines `A. text` behind it."""
    lines = [f"Context: {hint}"] if hint else []
    lines += [question, *(f"{letter}. {choice}" for letter, choice in zip("ABCDEFGHIJ", choices, strict=False))]
    return "\n".join(lines)


def with_suffix(question: str, suffix: str = SHORT_ANSWER) -> str:
    """The question with the answer format asked for on the last line."""
    return f"{question}\n{suffix}"
