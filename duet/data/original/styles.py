"""The text of a conversation as LLaVA's `Conversation.get_prompt` writes it, also where messages are empty.

For rows in order the text is that of `duet.llava.prompts`; an empty message leaves out its separator, so that a last
answer has no end token and a middle one runs into the next question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from duet.errors import UserError, suggest
from duet.llava.prompts import DIRECT_SYSTEM, END, HELPFUL_SYSTEM, HUMAN_SYSTEM, MPT_SYSTEM, SAFE_SYSTEM, SYSTEM

#: The system message of the formats that wrap pictures in tags.
TAGGED_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant is able to understand the "
    "visual content that the user provides, and assist the user with a variety of tasks using natural language."
    "The visual content will be provided with the following format: <Image>visual content</Image>."
)


@dataclass(frozen=True)
class Style:
    """A conversation format.

    Attributes:
        kind: `two` (alternating separators), `blocks` (`### Role: text`), `llama_2`, `mpt` or `plain`.
        system: its system message.
        roles: names of the two speakers in the text.
        separators: after a question and after an answer.
        tagged: whether `<image>` becomes `<Image><image></Image>`.
    """

    kind: str
    system: str = ""
    roles: tuple[str, str] = ("USER", "ASSISTANT")
    separators: tuple[str, str] = (" ", END)
    tagged: bool = False


_CHATML = ("<|im_start|>user\n", "<|im_start|>assistant\n")
_VICUNA = Style("two", SYSTEM)
_BLOCKS = Style("blocks", HUMAN_SYSTEM, ("Human", "Assistant"), ("###", "###"))
STYLES = {
    "v1": _VICUNA,
    "vicuna_v1": _VICUNA,
    "v0": _VICUNA,  # train.py sets only the padding token for it
    "v0.5": _VICUNA,
    "llava_v1": Style("two", HUMAN_SYSTEM),
    "v1_mmtag": Style("two", TAGGED_SYSTEM, tagged=True),
    "llama_2": Style("llama_2", SAFE_SYSTEM, separators=("<s>", END)),
    "llava_llama_2": Style("llama_2", HELPFUL_SYSTEM, separators=("<s>", END)),
    "mistral_instruct": Style("llama_2", separators=("", END)),
    "mpt": Style("mpt", f"<|im_start|>system\n{MPT_SYSTEM}", _CHATML, ("<|im_end|>", "")),
    "chatml_direct": Style("mpt", f"<|im_start|>system\n{DIRECT_SYSTEM}", _CHATML, ("<|im_end|>", "")),
    "mistral_direct": Style("mpt", f"<|im_start|>system\n{DIRECT_SYSTEM}", _CHATML, ("<|im_end|>", "")),
    "plain": Style("plain", separators=("\n", "")),
    "v0_plain": Style("plain", separators=("\n", "")),
    "default": _BLOCKS,
    "llava_v0": _BLOCKS,
    "v0_mmtag": Style("blocks", TAGGED_SYSTEM, ("Human", "Assistant"), ("###", "###"), tagged=True),
}


def find_style(version: str) -> Style:
    """A format by the original's `--version`; there, an unknown name silently means `vicuna_v1`.

    Raises:
        UserError: unknown.
    """
    if version not in STYLES:
        raise UserError(f"the original code has no prompt format {version!r}; {suggest(version, STYLES)}")
    return STYLES[version]


def written(style: Style, messages: Sequence[tuple[str, Any]]) -> str:
    """The conversation as text.

    Args:
        style: its format; not `blocks` or `plain`, whose texts the original builds elsewhere.
        messages: role as in the text, and the message; an empty one writes only the role.

    Raises:
        AssertionError: the first message is empty (`llama_2`).
        TypeError: a message is not a text.
    """
    if style.kind == "llama_2":
        return _llama_2(style, messages)
    between = ": " if style.kind == "two" else ""
    text = style.system + style.separators[0]
    for place, (role, message) in enumerate(messages):
        end = style.separators[place % 2] if style.kind == "two" else style.separators[0]
        text += f"{role}{between}" + message + end if message else f"{role}{between.strip()}"
    return text


def _llama_2(style: Style, messages: Sequence[tuple[str, Any]]) -> str:
    begin, end = style.separators
    text = ""
    for place, (_, message) in enumerate(messages):
        assert message or place, "first message should not be none"
        if not message:
            continue
        if place == 0 and style.system:
            message = f"<<SYS>>\n{style.system}\n<</SYS>>\n\n" + message
        text += " " + message + " " + end if place % 2 else begin + "[INST] " + message + " [/INST]"
    return text.lstrip(begin) if begin else text
