"""Chat templates of LLaVA as pure functions: turns -> text, with the parts that the model is trained on marked.

`vicuna_v1` is the conversation of LLaVA-1.5 (arXiv 2310.03744) and of LLaVA-NeXT on Vicuna, `mistral_instruct` and
`llava_llama_3` those of LLaVA-NeXT on Mistral and LLaMA 3, `llava_v1` that of Video-LLaVA (arXiv 2311.10122) with
a "human" in place of the "user", `plain` that of projector pretraining: the picture, then the caption, nothing else. A
turn is a (question, answer) pair; an open question has the answer None and the text then ends where the answer begins:
right behind "ASSISTANT:", with no blank, as every benchmark of the original asks it. Questions carry their `<image>` or
`<video>` placeholder themselves. The token that begins a text (`<s>`, `<|begin_of_text|>`) comes from the tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from duet.text.placeholders import IMAGE

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
HUMAN_SYSTEM = SYSTEM.replace("user", "human")
HELPFUL_SYSTEM = (
    "You are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language."
)
END = "</s>"
#: Tokens that end a turn, but not a text: an answer ends with them, too.
TURN_END = ("<|eot_id|>",)
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


def mistral_instruct_segments(turns: Sequence[Turn]) -> list[Segment]:
    """The conversation of Mistral in pieces; the blank behind an answer is the original's."""
    segments = []
    for question, answer in turns:
        segments.append(Segment(f"[INST] {question} [/INST]", False))
        if answer is not None:
            segments.append(Segment(f" {answer} {END}", True))
    return segments


def llava_llama_3_segments(turns: Sequence[Turn], system: str = HELPFUL_SYSTEM) -> list[Segment]:
    """The conversation of LLaMA 3 in pieces; questions and answers lose blanks and line ends around them."""
    (end,) = TURN_END

    def head(role: str) -> str:
        return f"<|start_header_id|>{role}<|end_header_id|>\n\n"

    segments, opening = [], f"{head('system')}{system}{end}"
    for question, answer in turns:
        segments.append(Segment(f"{opening}{head('user')}{question.strip()}{end}{head('assistant')}", False))
        if answer is not None:
            segments.append(Segment(f"{answer.strip()}{end}", True))
        opening = ""
    return segments


def plain_segments(turns: Sequence[Turn]) -> list[Segment]:
    """Pictures, then their caption and a line end. Of each question only the placeholders stay (LLaVA's stage 1)."""
    segments = []
    for question, answer in turns:
        segments.append(Segment(IMAGE * question.count(IMAGE), False))
        if answer is not None:
            segments.append(Segment(f"{answer}\n", True))
    return segments


TEMPLATES = {
    "vicuna_v1": vicuna_v1_segments,
    "mistral_instruct": mistral_instruct_segments,
    "llava_llama_3": llava_llama_3_segments,
    "llava_v1": llava_v1_segments,
    "plain": plain_segments,
}


def conversation_of(config: Any, tokenizer: Any) -> str:
    """The conversation that a checkpoint was trained on, a name in `TEMPLATES`.

    LLaVA-1.5 is always asked in `vicuna_v1`; a LLaVA-NeXT in the words of its language model.

    Args:
        config: of the model.
        tokenizer: of the model; LLaMA 3 is told from its older kin by the marks that its conversation needs.
    """
    if config.model_type == "llava_next":
        if config.get_text_config().model_type == "mistral":
            return "mistral_instruct"
        if all(token in tokenizer.get_vocab() for token in TURN_END):
            return "llava_llama_3"
    return "vicuna_v1"


def vicuna_v1(turns: Sequence[Turn] | str) -> str:
    """The whole conversation as text; a string is one open question.

    >>> vicuna_v1("<image>\\nIs it dark?")[-39:]
    'USER: <image>\\nIs it dark? ASSISTANT:'
    """
    return "".join(segment.text for segment in vicuna_v1_segments([(turns, None)] if isinstance(turns, str) else turns))


def conversation_text(name: str, question: str) -> str:
    """An open question in one of `TEMPLATES`."""
    return "".join(segment.text for segment in TEMPLATES[name]([(question, None)]))


def plain(turns: Sequence[Turn] | str) -> str:
    """The pretraining prompt as text; a string is one open caption request."""
    return "".join(segment.text for segment in plain_segments([(turns, None)] if isinstance(turns, str) else turns))


def with_picture(question: str) -> str:
    """The question with the picture's placeholder on a line of its own in front."""
    return f"{IMAGE}\n{question}"


def with_choices(question: str, choices: Sequence[str], hint: str = "") -> str:
    """Question, optional context line before it, and the options as lines `A. text` behind it."""
    lines = [f"Context: {hint}"] if hint else []
    lines += [question, *(f"{letter}. {choice}" for letter, choice in zip("ABCDEFGHIJ", choices, strict=False))]
    return "\n".join(lines)


def with_suffix(question: str, suffix: str = SHORT_ANSWER) -> str:
    """The question with the answer format asked for on the last line."""
    return f"{question}\n{suffix}"
