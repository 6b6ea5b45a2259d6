"""Chat templates of LLaVA as pure functions: turns -> text, with the parts that the model is trained on marked.

`vicuna_v1` is the conversation of LLaVA-1.5 (arXiv 2310.03744) and of LLaVA-NeXT on Vicuna, `mistral_instruct` and
`llava_llama_3` those of LLaVA-NeXT on Mistral and LLaMA 3, `llava_v1` that of Video-LLaVA (arXiv 2311.10122) with
"human" instead of "user", `plain` that of projector pretraining: the picture and the caption, nothing else. The others
are of the first LLaVA and of its variants on other language models (`llava/conversation.py`). A turn is a
(question, answer) pair. An open question has the answer None; its text ends where the answer begins, right after
"ASSISTANT:" without a space, as in all benchmarks of the original. Questions contain their own `<image>` or `<video>`
placeholders. The begin token (`<s>`, `<|begin_of_text|>`) comes from the tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from duet.errors import UserError, suggest
from duet.text.placeholders import IMAGE, VIDEO, cut
from duet.text.segments import Segment

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
#: LLaMA 2's own.
SAFE_SYSTEM = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being safe.  "
    "Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. "
    "Please ensure that your responses are socially unbiased and positive in nature.\n\n"
    "If a question does not make any sense, or is not factually coherent, explain why instead of answering something "
    "not correct. If you don't know the answer to a question, please don't share false information."
)
MPT_SYSTEM = (
    "A conversation between a user and an LLM-based AI assistant. The assistant gives helpful and honest answers."
)
DIRECT_SYSTEM = "Answer the questions."
END = "</s>"
#: Tokens that end a turn but not the text; generation of an answer stops at them, too.
TURN_END = ("<|eot_id|>",)
SHORT_ANSWER = "Answer the question using a single word or phrase."
OPTION_LETTER = "Answer with the option's letter from the given choices directly."

Turn = tuple[str, str | None]
Template = Callable[..., list[Segment]]


def _pieces(turns: Sequence[Turn], opening: str, asked: str, answered: str, between: str = "") -> list[Segment]:
    """The pieces of a conversation.

    Args:
        turns: questions and answers; None for an answer that is still to be given.
        opening: in front of the first question.
        asked, answered: a question's and an answer's piece, with `{}` for its text.
        between: in front of every other question.
    """
    segments = []
    for question, answer in turns:
        segments.append(Segment(opening + asked.format(question), False))
        if answer is not None:
            segments.append(Segment(answered.format(answer), True))
        opening = between
    return segments


def vicuna_v1_segments(turns: Sequence[Turn], system: str | None = SYSTEM) -> list[Segment]:
    """The conversation in pieces; an answer's piece starts with the space after "ASSISTANT:"."""
    opening = f"{SYSTEM if system is None else system} "
    return _pieces(turns, opening, "USER: {} ASSISTANT:", " {}" + END)


def llava_v1_segments(turns: Sequence[Turn], system: str | None = None) -> list[Segment]:
    """The conversation of Video-LLaVA in pieces, as `vicuna_v1_segments`."""
    return vicuna_v1_segments(turns, HUMAN_SYSTEM if system is None else system)


def llava_v0_segments(turns: Sequence[Turn], system: str | None = None) -> list[Segment]:
    """The conversation of the first LLaVA in pieces: blocks that end with `###`."""
    opening = f"{HUMAN_SYSTEM if system is None else system}###"
    return _pieces(turns, opening, "Human: {}###Assistant:", " {}###")


def mistral_instruct_segments(turns: Sequence[Turn], system: str | None = None) -> list[Segment]:
    """The conversation of Mistral in pieces; the space after an answer is as in the original.

    Raises:
        UserError: a system message, for which it has no place.
    """
    _refuse(system, "mistral_instruct")
    return llama_2_segments(turns, "", begin="")


def llama_2_segments(turns: Sequence[Turn], system: str | None = None, begin: str = "<s>") -> list[Segment]:
    """The conversation of LLaMA 2 in pieces, the system message inside the first question.

    Args:
        turns: questions and answers.
        system: None: LLaMA 2's own; empty: none.
        begin: token in front of every turn but the first, whose own comes from the tokenizer.
    """
    system = SAFE_SYSTEM if system is None else system
    lead = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else ""
    return _pieces(turns, f"[INST] {lead}", "{} [/INST]", f" {{}} {END}", between=f"{begin}[INST] ")


def llava_llama_2_segments(turns: Sequence[Turn], system: str | None = None) -> list[Segment]:
    """As `llama_2_segments`, with LLaVA's system message."""
    return llama_2_segments(turns, HELPFUL_SYSTEM if system is None else system)


def llava_llama_3_segments(turns: Sequence[Turn], system: str | None = HELPFUL_SYSTEM) -> list[Segment]:
    """The conversation of LLaMA 3 in pieces; white space around questions and answers is stripped."""
    (end,) = TURN_END
    system = HELPFUL_SYSTEM if system is None else system

    def head(role: str) -> str:
        return f"<|start_header_id|>{role}<|end_header_id|>\n\n"

    stripped = [(question.strip(), None if answer is None else answer.strip()) for question, answer in turns]
    asked = f"{head('user')}{{}}{end}{head('assistant')}"
    return _pieces(stripped, f"{head('system')}{system}{end}", asked, f"{{}}{end}")


def chatml_segments(turns: Sequence[Turn], system: str | None = None, own: str = DIRECT_SYSTEM) -> list[Segment]:
    """The conversation of LLaVA on MPT, and on other models with ChatML marks, without line breaks between messages."""
    end = "<|im_end|>"
    opening = f"<|im_start|>system\n{own if system is None else system}{end}"
    asked = f"<|im_start|>user\n{{}}{end}<|im_start|>assistant\n"
    return _pieces(turns, opening, asked, f"{{}}{end}")


def plain_segments(turns: Sequence[Turn], system: str | None = None) -> list[Segment]:
    """Pictures, then their caption and a newline. Only the placeholders of a question are kept (LLaVA's stage 1).

    Raises:
        UserError: a system message, for which it has no place.
    """
    _refuse(system, "plain")
    marks = [
        ("".join(piece for piece in cut(question) if piece in (IMAGE, VIDEO)), answer) for question, answer in turns
    ]
    return _pieces(marks, "", "{}", "{}\n")


#: Name -> function of turns and a system message (None: its own).
TEMPLATES: dict[str, Template] = {
    "vicuna_v1": vicuna_v1_segments,
    "mistral_instruct": mistral_instruct_segments,
    "llava_llama_3": llava_llama_3_segments,
    "llava_v1": llava_v1_segments,
    "plain": plain_segments,
    "llama_2": llama_2_segments,
    "llava_llama_2": llava_llama_2_segments,
    "llava_v0": llava_v0_segments,
    "mpt": partial(chatml_segments, own=MPT_SYSTEM),
    "chatml_direct": chatml_segments,
}
#: Other names of the original's `--version`.
ALIASES = {
    "v1": "vicuna_v1",
    "v0": "llava_v0",
    "default": "llava_v0",
    "v0_plain": "plain",
    "mistral_direct": "chatml_direct",
}


def template(name: str) -> Template:
    """A template by its name or by LLaVA's other name for it.

    Raises:
        UserError: unknown.
    """
    found = ALIASES.get(name, name)
    if found not in TEMPLATES:
        raise UserError(f"no prompt template {name!r}; {suggest(name, [*TEMPLATES, *ALIASES])}")
    return TEMPLATES[found]


def _refuse(system: str | None, name: str) -> None:
    if system is not None:
        raise UserError(f"the prompt template {name} has no place for a system message")


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
    return "".join(segment.text for segment in template(name)([(question, None)]))


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
