"""Messages -> the text that a family's processor takes, turns and system message in the family's prompt format."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from duet.backbones.qwen_asking import CHAT_TEMPLATE
from duet.errors import UserError
from duet.serve.errors import refuse
from duet.serve.schema import Image, Message, Text
from duet.text.placeholders import IMAGE, VIDEO

if TYPE_CHECKING:
    from duet.interfaces import Asking

#: Prompt formats of `duet.llava.prompts` with a system message.
WITH_SYSTEM = ("vicuna_v1", "llava_llama_3")


class Prompts:
    """Writes the prompts of one model.

    Args:
        asking: of its family.
        processor: of the model.
    """

    def __init__(self, asking: Asking, processor: Any) -> None:
        self.asking, self.processor = asking, processor
        self.conversation = asking.conversation()
        # a client's text must not end its turn, or insert a placeholder without a picture
        self.reserved = sorted({IMAGE, VIDEO, *processor.tokenizer.get_added_vocab()})
        if self.conversation == CHAT_TEMPLATE and getattr(processor, "chat_template", None) is None:
            raise UserError("the checkpoint has no chat template (chat_template.json or tokenizer_config.json)")

    def write(self, messages: Sequence[Message]) -> str:
        """The prompt, up to the start of the answer.

        Raises:
            ApiError: the messages do not alternate, contain markers of the prompt format, or videos that the model does
                not take.
        """
        system, turns = self._order(messages)
        texts = ["".join(self._pieces(turn, self.asking.between)) for turn in turns]
        pairs: list[tuple[str, str | None]] = list(zip(texts[::2], texts[1::2], strict=False))
        return self.asking.text([*pairs, (texts[-1], None)], system)

    def _order(self, messages: Sequence[Message]) -> tuple[str | None, list[Message]]:
        """The system message, and the turns after it: user, assistant, ..., user."""
        for number, message in enumerate(messages):
            self._check(message, f"messages[{number}]")
        first = messages[0]
        has_system = first.role in ("system", "developer")
        turns = list(messages[has_system:])
        expected = ["assistant" if number % 2 else "user" for number in range(len(turns))]
        if [turn.role for turn in turns] != expected or len(turns) % 2 == 0:
            raise refuse(
                "messages: at most one system message, then user and assistant in turns, user last", "messages"
            )
        if not has_system:
            return None, turns
        if self.conversation not in (*WITH_SYSTEM, CHAT_TEMPLATE):
            raise refuse("messages[0]: this model's prompt format has no system message", "messages[0]")
        return "".join(part.text for part in first.content if isinstance(part, Text)), turns

    def _check(self, message: Message, where: str) -> None:
        for number, part in enumerate(message.content):
            here = f"{where}.content[{number}]"
            if isinstance(part, Text):
                self._check_text(part.text, here)
            elif message.role != "user":
                raise refuse(f"{here}: only user messages may contain pictures and videos", here)
            elif not isinstance(part, Image) and not self.asking.takes_videos:
                raise refuse(f"{here}: this model takes pictures only, no videos", here)
        # texts are joined: a marker may be cut in two
        for is_text, parts in groupby(message.content, lambda part: isinstance(part, Text)):
            if is_text:
                self._check_text("".join(part.text for part in parts if isinstance(part, Text)), f"{where}.content")

    def _check_text(self, text: str, where: str) -> None:
        mark = next((mark for mark in self.reserved if mark in text), None)
        if mark is not None:
            raise refuse(f"{where}: {mark} is a marker of the prompt format; it is not allowed in a text", where)

    @staticmethod
    def _pieces(message: Message, between: str) -> list[str]:
        """Texts and placeholders, a placeholder followed by `between`.

        Pictures before or after the text are put before it: these models were trained that way, and then
        the text can vote on their tokens. The order is kept only if there is text between them.
        """
        parts = list(message.content)
        texts = [number for number, part in enumerate(parts) if isinstance(part, Text)]
        if texts:
            together = texts[-1] - texts[0] + 1 == len(texts)
            on_both_sides = texts[0] > 0 and texts[-1] < len(parts) - 1
            if together and not on_both_sides:
                parts.sort(key=lambda part: isinstance(part, Text))
        pieces: list[str] = []
        for part in parts:
            if isinstance(part, Text):
                pieces.append(part.text)
            else:
                lead = between if pieces and not pieces[-1].endswith("\n") else ""
                pieces += [lead, IMAGE if isinstance(part, Image) else VIDEO, between]
        return [piece for piece in pieces if piece]
