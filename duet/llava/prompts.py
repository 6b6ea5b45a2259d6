"""Chat templates of LLaVA as pure functions: turns -> text, with the parts that the model is trained on marked.

`vicuna_v1` is the conversation of LLaVA-1.5 (arXiv 2310.03744) and of LLaVA-NeXT on Vicuna, `mistral_instruct` and
`llava_llama_3` those of LLaVA-NeXT on Mistral and LLaMA 3, `llava_v1` that of Video-LLaVA (arXiv 2311.10122) with
"human" instead of "user", `plain` that of projector pretraining: the picture and the caption, nothing else. A turn is a
(question, answer) pair. An open question has the answer None; its text ends where the answer begins, right after
"ASSISTANT:" without a space, as in all benchmarks of the original. Questions contain their own `<image>` or `<video>`
placeholders. The begin token (`<s>`, `<|begin_of_text|>`) comes from the tokenizer.
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
#: Tokens that end a turn but not the text; generation of an answer stops at them, too.
TURN_END = ("<|eot_id|>",)
SHORT_ANSWER = "Answer the question using a single word or phrase."
OPTION_LETTER = "Answer with the option's letter from the given choices directly."

Turn = tuple[str, str | None]


class Segment(NamedTuple):
    """A piece of a prompt. `learned` marks pieces that the loss is computed on: answers with their end token."""

    text: str
    learned: bool


def vicuna_v1_segments(turns: Sequence[Turn], system: str = SYSTEM) -> list[Segment]:
    """The conversation in pieces; an answer's piece starts with the space after "ASSISTANT:"."""
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
    """The conversation of Mistral in pieces; the space after an answer is as in the original."""
    segments = []
    for question, answer in turns:
        segments.append(Segment(f"[INST] {question} [/INST]", False))
        if answer is not None:
            segments.append(Segment(f" {answer} {END}", True))
    return segments


def llava_llama_3_segments(turns: Sequence[Turn], system: str = HELPFUL_SYSTEM) -> list[Segment]:
    """The conversation of LLaMA 3 in pieces; white space around questions and answers is stripped."""
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
    """Pictures, then their caption and a newline. Only the placeholders of a question are kept (LLaVA's stage 1)."""
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

    LLaVA-1.5 always uses `vicuna_v1`; LLaVA-NeXT uses the conversation of its language model.

    Args:
        config: the model's.
        tokenizer: the model's; LLaMA 3 is recognised by the special tokens of its conversation.
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
    """The question with the picture's placeholder on its own line before it."""
    return f"{IMAGE}\n{question}"


def with_choices(question: str, choices: Sequence[str], hint: str = "") -> str:
    """Optional context line, question, and the options as lines `A. text`."""
    lines = [f"Context: {hint}"] if hint else []
    lines += [question, *(f"{letter}. {choice}" for letter, choice in zip("ABCDEFGHIJ", choices, strict=False))]
    return "\n".join(lines)


def with_suffix(question: str, suffix: str = SHORT_ANSWER) -> str:
    """The question with the answer format asked for on the last line."""
    return f"{question}\n{suffix}"
