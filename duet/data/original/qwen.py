"""Records -> ids and labels of Qwen's own finetuning code (`qwen-vl-finetune`, `preprocess_qwen_2_visual`).

Its house style: a system sentence of its own in front of every conversation, every message tokenised apart, and of an
answer all but the first three ids (`<|im_start|>`, `assistant`, newline) learned, with the newline after `<|im_end|>`.
Placeholders are replaced in place, in questions only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from duet.data.collate import IGNORED
from duet.data.original.encode import LeftOut, OriginalRow
from duet.text.placeholders import IMAGE, VIDEO

SYSTEM = "You are a helpful assistant."
#: Ids of `<|im_start|>assistant\n`.
OPENING = 3
ROLES = {"human": "user", "gpt": "assistant"}
PADS = {IMAGE: "<|image_pad|>", VIDEO: "<|video_pad|>"}


class QwenEncoder:
    """Encodes records.

    Args:
        tokenizer: of the checkpoint, from transformers.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def encode(self, record: Any, pads: Sequence[int] = (), video_pads: Sequence[int] = ()) -> OriginalRow:
        """Ids and labels of a record.

        Args:
            record: with `conversations`, in either spelling.
            pads, video_pads: visual tokens of each picture and video; too many are not noticed.

        Raises:
            LeftOut: an exception in the original.
        """
        left = {IMAGE: iter(pads), VIDEO: iter(video_pads)}
        try:
            messages = list(record["conversations"])
            if messages and isinstance(messages[0], dict) and messages[0].get("from") == "gpt":
                messages = messages[1:]  # of a first message from anyone else, or of none, nothing is said
            ids = self._ids("system", SYSTEM)
            labels = [IGNORED] * len(ids)
            for message in messages:
                spoken = "role" in message and "content" in message
                role, text = (message["role"], message["content"]) if spoken else (message["from"], message["value"])
                role = ROLES.get(role, role)
                text = _filled(text, left) if role == "user" else text
                added = self._ids(role, text)
                ids += added
                skipped = len(added) if role in ("user", "system") else OPENING
                labels += [IGNORED] * skipped + added[skipped:]
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise LeftOut(f"the original fails on it ({type(error).__name__}: {error})") from error
        return OriginalRow(ids, labels)

    def _ids(self, role: str, text: str) -> list[int]:
        if not isinstance(text, str):
            raise TypeError("a message is not a text")
        return list(self.tokenizer(f"<|im_start|>{role}\n{text}<|im_end|>\n", add_special_tokens=False)["input_ids"])


def _filled(text: str, left: dict[str, Iterator[int]]) -> str:
    """The text with every placeholder written as its visual tokens."""
    for kind, pad in PADS.items():
        first, *rest = text.split(kind)
        for part in rest:
            count = next(left[kind], None)
            if count is None:
                raise IndexError(f"more {kind} than files")
            first += f"<|vision_start|>{pad * count}<|vision_end|>{part}"
        text = first
    return text
