"""Tokens -> text, streamed: without half characters, partial stop strings or outer blanks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: What a tokenizer gives for incomplete characters.
HALF = "�"


class Writer:
    """The text of one answer.

    Args:
        tokenizer: of the model.
        stop: strings that end the answer.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self.tokenizer, self.stop = tokenizer, stop
        self.stopped = False
        self._tokens: list[int] = []
        # tokens up to `_read` are in the text; they are decoded together with those from `_from` on, because some
        # tokenizers decode the first token differently
        self._from = self._read = 0
        self._started = False
        self._held = ""

    def put(self, token: int) -> str:
        """The text that is final after this token, or ""."""
        self._tokens.append(token)
        return self._release(self._decode(last=False), last=False)

    def end(self) -> str:
        """The text held back, at the end of the answer."""
        return self._release(self._decode(last=True), last=True)

    def _decode(self, last: bool) -> str:
        before = self._text(self._from, self._read)
        now = self._text(self._from, len(self._tokens))
        if len(now) <= len(before) or (now.endswith(HALF) and not last):
            return ""
        if HALF not in now:  # else part of a character may be missing, which changes how the rest decodes
            self._from = self._read
        self._read = len(self._tokens)
        return now[len(before) :]

    def _text(self, start: int, end: int) -> str:
        return self.tokenizer.decode(self._tokens[start:end], skip_special_tokens=True)

    def _release(self, new: str, last: bool) -> str:
        if self.stopped:
            return ""
        text = self._held + new
        if not self._started:
            text = text.lstrip()
        ends = [at for stop in self.stop if (at := text.find(stop)) >= 0]
        if ends:
            self.stopped = True
            text = text[: min(ends)]
        sure = len(text) - (0 if last or self.stopped else self._unsure(text))
        ready = text[:sure].rstrip()
        self._held = text[len(ready) :]
        self._started = self._started or bool(ready)
        return ready

    def _unsure(self, text: str) -> int:
        """Number of characters at the end that may begin a stop string."""
        lengths = [
            length
            for stop in self.stop
            for length in range(min(len(stop) - 1, len(text)), 0, -1)
            if text.endswith(stop[:length])
        ]
        return max(lengths, default=0)
